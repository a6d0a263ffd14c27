"""CLIP image classification from cached embeddings.

    import clipcifar

    project = clipcifar.open()                          # from any folder of a project
    images = project.images("test")                     # embeddings, labels, ids
    probe = project.classifier("linear_probe")
    probe.predict(["cat.jpg"]), probe.predict_proba(images.embeddings)
    print(project.compare("photo", "scenes").verdict)

docs/python.md shows the rest; ARCHITECTURE.md has the order of the packages. What is named here is imported
when it is asked for, so that importing this package is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipcifar.api.classifier import Classifier
    from clipcifar.api.project import Project, open
    from clipcifar.core.errors import ClipcifarError

    __version__: str

__all__ = ["Classifier", "ClipcifarError", "Project", "open"]

if not TYPE_CHECKING:  # a type checker would take any name for one that this gives

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version(__name__)
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from clipcifar.api import classifier, project
        from clipcifar.core import errors

        return next(getattr(home, name) for home in (errors, classifier, project) if hasattr(home, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
