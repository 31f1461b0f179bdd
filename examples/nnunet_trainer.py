"""RWKV-UNet under nnU-Net's plans, augmentation and schedule: its configuration ``2d``.

Copy this file into ``nnunetv2/training/nnUNetTrainer/``, then::

    nnUNetv2_train DATASET 2d FOLD -tr nnUNetTrainerRWKVUNet

nnU-Net normalises the images by its own plan; the patch's sides must be multiples of 16.
"""

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

import rwkvlib


class nnUNetTrainerRWKVUNet(nnUNetTrainer):
    """nnU-Net's trainer with RWKV-UNet-T."""

    # nnU-Net looks the arguments up by these names.
    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device=torch.device("cuda")):  # noqa: B008
        super().__init__(plans, configuration, fold, dataset_json, device=device)
        self.enable_deep_supervision = False

    @staticmethod
    def build_network_architecture(
        architecture_class_name: str,
        arch_init_kwargs: dict,
        arch_init_kwargs_req_import: list[str],
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """The network; what the plans say of another one is not used."""
        return rwkvlib.create_model("rwkv_unet_t", in_channels=num_input_channels, num_classes=num_output_channels)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing to switch: there is one output."""
