"""The file for any size is timed beside the fixed ones, on the same images."""

import importlib
from pathlib import Path


def test_ratios_are_printed_for_each_size(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    bench = importlib.import_module("bench_onnx")
    exported = []

    def export(model, path, size, **options):
        exported.append((size, options))
        return path

    seconds = {"any.onnx": 0.3, "32.onnx": 0.1, "64.onnx": 0.2}
    monkeypatch.setattr(bench, "export_onnx", export)
    monkeypatch.setattr(bench, "runner", lambda path, size: path.name)
    monkeypatch.setattr(bench, "interleaved", lambda ways, repeats: {p: seconds[name] for p, name in ways.items()})
    monkeypatch.setattr(
        "sys.argv", ["bench_onnx.py", "--model", "rwkv_unet_p", "--sizes", "32", "64", "--largest", "96"]
    )
    bench.main()
    assert exported == [(None, {"largest": 96}), (32, {}), (64, {})]
    assert capsys.readouterr().out.splitlines() == [
        "rwkv_unet_p 32 px: 3.00 times the fixed file's 100 ms",
        "rwkv_unet_p 64 px: 1.50 times the fixed file's 200 ms",
    ]
