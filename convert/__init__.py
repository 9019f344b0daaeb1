"""HDF5 and other sources → store: scan, plan, write, statistics, finalise; and ``verify``.

In: paths of sources. Out: a store, a report. Never imports ``loader`` or torch.
Read first: ``run.convert``, which calls the stages in order.
"""

try:
    from robozarr.convert.run import ConvertReport, convert
    from robozarr.convert.verifying.verification import VerifyReport, verify
except ModuleNotFoundError as exc:
    if (exc.name or "robozarr").split(".")[0] == "robozarr":
        raise
    raise ModuleNotFoundError(
        f"converting needs {exc.name}, which is not installed → pip install '.[convert]' in a clone of robozarr", name=exc.name
    ) from None

__all__ = ["ConvertReport", "VerifyReport", "convert", "verify"]
