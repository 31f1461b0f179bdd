"""Training, evaluation and prediction. Import from the modules: train.py needs Accelerate, seconds to import."""
