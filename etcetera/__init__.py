"""Share datasets through a bucket.

    >>> import etcetera as etc
    >>> flower = etc.dataset("flower", auto_install=True)
    >>> flower.keys()
    {'test', 'train'}

Every function has an async twin: ``await etc.adataset(...)``. What a name needs is imported when
it is first used, so that importing the package costs next to nothing.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from etcetera.dataset import Dataset

if TYPE_CHECKING:
    from etcetera.api import (
        acreate,
        adataset,
        ainfo,
        als,
        apull,
        apurge,
        apush,
        aregister,
        aremote,
    )
    from etcetera.blocking import (
        clean,
        create,
        dataset,
        doctor,
        info,
        lock,
        ls,
        pull,
        purge,
        push,
        register,
        remote,
        share,
        status,
        sync,
        verify,
    )
    from etcetera.cleaning import aclean
    from etcetera.config import Config
    from etcetera.diagnosis import adoctor
    from etcetera.errors import EtceteraError
    from etcetera.findings import Diagnosis, Finding
    from etcetera.pins import Lock, Pin
    from etcetera.progress import Progress
    from etcetera.remote_dataset import RemoteDataset
    from etcetera.results import (
        DatasetInfo,
        DatasetStatus,
        Leftover,
        PartitionInfo,
        PullResult,
        PushResult,
        ShareResult,
        SyncResult,
        VerifyResult,
    )
    from etcetera.sharing import ashare
    from etcetera.verification import averify
    from etcetera.versions import alock, astatus, async_
else:
    # The import above has bound the module of that name; the function is meant, see __getattr__.
    del dataset

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Dataset",
    "DatasetInfo",
    "DatasetStatus",
    "Diagnosis",
    "EtceteraError",
    "Finding",
    "Leftover",
    "Lock",
    "PartitionInfo",
    "Pin",
    "Progress",
    "PullResult",
    "PushResult",
    "RemoteDataset",
    "ShareResult",
    "SyncResult",
    "VerifyResult",
    "aclean",
    "acreate",
    "adataset",
    "adoctor",
    "ainfo",
    "alock",
    "als",
    "apull",
    "apurge",
    "apush",
    "aregister",
    "aremote",
    "ashare",
    "astatus",
    "async_",
    "averify",
    "clean",
    "create",
    "dataset",
    "doctor",
    "info",
    "lock",
    "ls",
    "pull",
    "purge",
    "push",
    "register",
    "remote",
    "share",
    "status",
    "sync",
    "verify",
]

_MODULES = {
    **dict.fromkeys(
        (
            "acreate",
            "adataset",
            "ainfo",
            "als",
            "apull",
            "apurge",
            "apush",
            "aregister",
            "aremote",
        ),
        "api",
    ),
    "aclean": "cleaning",
    "adoctor": "diagnosis",
    "ashare": "sharing",
    "averify": "verification",
    **dict.fromkeys(("alock", "astatus", "async_"), "versions"),
    **dict.fromkeys(
        ("clean", "create", "dataset", "info", "ls", "pull", "purge", "push", "register", "remote"),
        "blocking",
    ),
    **dict.fromkeys(("doctor", "lock", "share", "status", "sync", "verify"), "blocking"),
    "Config": "config",
    "EtceteraError": "errors",
    **dict.fromkeys(("Diagnosis", "Finding"), "findings"),
    "Progress": "progress",
    **dict.fromkeys(("Lock", "Pin"), "pins"),
    "RemoteDataset": "remote_dataset",
    **dict.fromkeys(
        ("DatasetInfo", "Leftover", "PartitionInfo", "PullResult", "PushResult"), "results"
    ),
    **dict.fromkeys(("DatasetStatus", "ShareResult", "SyncResult", "VerifyResult"), "results"),
}

_ASYNC = ("api", "cleaning", "diagnosis", "sharing", "verification", "versions")
"""Where the async functions are."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'etcetera' has no attribute {name!r}")
    module = f"etcetera.{_MODULES[name]}"
    if _MODULES[name] in _ASYNC and _loop_is_running() and not _is_imported(module):
        return _imported_in_thread(name, module)
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def _is_imported(name: str) -> bool:
    # While another thread imports it, a module is known already, and importing it would wait.
    module = sys.modules.get(name)
    return module is not None and not getattr(module.__spec__, "_initializing", False)


def _loop_is_running() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _imported_in_thread(name: str, module: str) -> object:
    """Stand in for an async function while importing it would make an event loop wait."""
    from asyncio import to_thread

    async def call(*args: Any, **kwargs: Any) -> Any:
        imported = await to_thread(import_module, module)
        return await getattr(imported, name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"See :func:`{module}.{name}`."
    return call


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
