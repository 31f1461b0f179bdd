"""Raw trees in the official layouts, of tiny images that are noise: one for each data set, complete."""

from pathlib import Path

import numpy as np
from PIL import Image

from data_scripts.splits import load_splits

WIDTH, HEIGHT = 12, 10  # different, so that a transposed axis shows


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def blob(row: int = 2, value: int = 255) -> np.ndarray:
    """A mask of 12 pixels."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[row : row + 3, 4:8] = value
    return mask


def save(array: np.ndarray, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def save_nifti(array: np.ndarray, path: Path, spacing: tuple[float, float, float]) -> None:
    """`array` is (x, y, z); the file's axes point right, back and up, so that y must be turned."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([spacing[0], -spacing[1], spacing[2], 1.0])), path)


def ct(depth: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A scan (x, y, z) in Hounsfield units, and the challenge's labels, which hold every one of 0 to 13."""
    rng = np.random.default_rng(seed)
    label = np.zeros((WIDTH, HEIGHT, depth), np.uint8)
    label[:, :, 0].flat[:14] = range(14)
    return rng.integers(-1000, 1000, label.shape).astype(np.int16), label


def build(name: str, raw: Path) -> Path:
    """Every item that the committed split of `name` knows, in the official layout."""
    known = load_splits(name)
    if name == "synapse":
        for i, volume in enumerate(known["volume"]):
            image, label = ct(3, i)
            save_nifti(image, raw / f"RawData/Training/img/img{volume}.nii.gz", (0.7, 0.8, 3.0))
            save_nifti(label, raw / f"RawData/Training/label/label{volume}.nii.gz", (0.7, 0.8, 3.0))
    elif name == "acdc":
        for patient in [*known["patient"], 101]:  # of the second test set, to be left out
            for frame in (1, 12):
                stem = raw / f"training/patient{patient:03d}/patient{patient:03d}_frame{frame:02d}"
                image, label = ct(2, patient)
                save_nifti(image, stem.with_name(f"{stem.name}.nii.gz"), (1.5, 1.6, 10.0))
                save_nifti(label % 4, stem.with_name(f"{stem.name}_gt.nii.gz"), (1.5, 1.6, 10.0))
            (stem.parent / "Info.cfg").write_text("ED: 1\nES: 12\n")
    elif name == "busi":
        for i, (item, label) in enumerate(zip(known["name"], known["label"], strict=True)):
            stem = raw / "Dataset_BUSI_with_GT" / label / item.replace("_", " ")
            save(picture(i), stem.with_name(f"{stem.name}.png"))
            save(blob() * (label != "normal"), stem.with_name(f"{stem.name}_mask.png"))
    elif name == "glas":
        for i, item in enumerate(known["name"]):
            save(picture(i), raw / f"Warwick QU Dataset/{item}.bmp")
            save(blob(value=1) + blob(6, 2), raw / f"Warwick QU Dataset/{item}_anno.bmp")
        (raw / "Warwick QU Dataset/Grade.csv").write_text("name,patient ID\n")
    elif name == "isic2017":
        for i, (item, official) in enumerate(zip(known["name"], known["official"], strict=True)):
            part = {"train": "Training", "validation": "Validation"}[official]
            save(picture(i), raw / f"ISIC-2017_{part}_Data/{item}.jpg")
            save(blob(), raw / f"ISIC-2017_{part}_Part1_GroundTruth/{item}_segmentation.png")
        save(picture(0), raw / "ISIC-2017_Training_Data/ISIC_0000000_superpixels.png")
        save(picture(1), raw / "ISIC-2017_Test_v2_Data/ISIC_9999999.jpg")
        save(blob(), raw / "ISIC-2017_Test_v2_Part1_GroundTruth/ISIC_9999999_segmentation.png")
    elif name == "cvc_clinicdb":
        for i, item in enumerate(known["name"]):
            save(picture(i), raw / f"Original/{item}.tif")
            save(blob(), raw / f"Ground Truth/{item}.tif")
    elif name == "cvc_colondb":
        for i, item in enumerate(known["name"]):
            save(picture(i), raw / f"images/{item}.png")
            save(np.repeat(blob()[..., None], 3, 2), raw / f"masks/{item}.png")
    elif name == "kvasir_seg":
        for i in range(20):
            save(np.kron(picture(i), np.ones((8, 8, 1), np.uint8)), raw / f"Kvasir-SEG/images/cju{i}.jpg")
            mask = np.kron(blob(), np.ones((8, 8), np.uint8))
            save(np.repeat(mask[..., None], 3, 2), raw / f"Kvasir-SEG/masks/cju{i}.jpg", quality=70)
        (raw / "Kvasir-SEG/kavsir_bboxes.json").write_text("{}")
    return raw


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
