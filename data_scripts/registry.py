"""The benchmark sets: the eight that the paper's first version names. Its third version says eleven; which the other
three are could not be confirmed, so they are left out. To add one, write its file and name it here."""

from . import acdc, busi, cvc_clinicdb, cvc_colondb, glas, isic2017, kvasir_seg, synapse
from .entry import Entry

REGISTRY: dict[str, Entry] = {
    module.ENTRY.name: module.ENTRY
    for module in (synapse, acdc, busi, cvc_clinicdb, cvc_colondb, kvasir_seg, isic2017, glas)
}


def find(name: str) -> Entry:
    """The entry called `name`. Raises ValueError for an unknown one."""
    if name not in REGISTRY:
        raise ValueError(f"name: expected one of {sorted(REGISTRY)}, got {name!r}")
    return REGISTRY[name]
