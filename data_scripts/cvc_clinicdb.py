"""CVC-ClinicDB: polyps in frames of 29 colonoscopy videos."""

from collections.abc import Iterator
from pathlib import Path

from .entry import Case, Entry
from .raw import folder, paired


def cases(raw: Path) -> Iterator[Case]:
    """``Original/1.tif`` with ``Ground Truth/1.tif``; .png as well."""
    return paired(folder(raw, "Original"), folder(raw, "Ground Truth"))


ENTRY = Entry(
    name="cvc_clinicdb",
    title="CVC-ClinicDB",
    modality="colonoscopy, video frames",
    classes=("polyp",),
    counts="612 frames of 29 sequences",
    licence="research and education; the owners ask to be cited",
    citation="Bernal et al., Computerized Medical Imaging and Graphics 43, 2015",
    page="https://polyp.grand-challenge.org/CVCClinicDB/",
    manual="Everything: the page links to a file share that asks for a click.",
    layout="Original/1.tif and Ground Truth/1.tif (give the TIF or the PNG folder of a copy that holds both)",
    splits="8:1:1 by sequence, seeded (column split): frames of one video never on both sides. split_image is 8:1:1 by "
    "image as in the literature, and leaks",
    cases=cases,
)
