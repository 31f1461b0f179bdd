"""What moved to `rwkvlib.report`."""


def __getattr__(name: str):
    from .. import report

    return getattr(report, name)
