"""The lines that open the README run as they stand, on fewer scenes."""

import re

from PIL import Image

from recamlib.paths import ROOT


def test_the_lines_that_open_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    for whole, part in (("train_count=960", "train_count=32"), ("epochs=8", "epochs=1")):
        assert whole in code  # less of it shows as much
        code = code.replace(whole, part)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said if "mIoU" in line] == ["CAM", "ReCAM"]
    with Image.open("hero.png") as picture:
        assert picture.width > picture.height / 2 > 100
