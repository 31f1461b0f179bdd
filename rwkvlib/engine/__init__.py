"""Training, evaluation and prediction. Import from the modules: train.py and evaluate.py need MONAI, 4 s to import."""
