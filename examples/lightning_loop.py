"""RWKV-UNet in a loop of Lightning: ten lines, with any loader of images in [0, 1] and masks of 0 and 1."""

import lightning
import torch
import torch.nn.functional as F

import rwkvlib


class Segmentation(lightning.LightningModule):
    """A binary mask, by cross-entropy."""

    def __init__(self, name: str = "rwkv_unet_t", **overrides):
        super().__init__()
        self.model = rwkvlib.create_model(name, **overrides)

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """The loss of ``image`` (B, 3, H, W) and ``mask`` (B, 1, H, W)."""
        logits = self.model(rwkvlib.normalise(batch["image"]))
        return F.binary_cross_entropy_with_logits(logits, batch["mask"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


if __name__ == "__main__":
    from torch.utils.data import DataLoader

    from rwkvlib.data import load_data

    loader = DataLoader(load_data("synthetic", "train", size=64), batch_size=8, shuffle=True)
    lightning.Trainer(max_epochs=1).fit(Segmentation(), loader)
