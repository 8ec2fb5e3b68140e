#!/usr/bin/python3
"""Write the list of fuzzers into SECURITY.md: what each holds, and how much of
its package the seeds and the committed corpus reach.

What each holds is the first sentence of its comment. The list is go test's own.
"""
import os, pathlib, re, subprocess, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
START, END = "<!-- fuzzers: make fuzz-coverage -->\n", "<!-- end of fuzzers -->\n"


def go(*args):
    return subprocess.run(["go", *args], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


def targets():
    names = []
    for line in go("test", "-list", "^Fuzz", "./...").splitlines():
        if line.startswith("Fuzz"):
            names.append(line)
        elif line.startswith("ok"):
            package = line.split()[1].removeprefix("mandos/")
            yield from ((package, name) for name in names)
            names = []


def holds(package, name):
    for path in sorted((ROOT / package).glob("*_test.go")):
        found = re.search(r"((?:^//.*\n)+)^func %s\(" % name, path.read_text(), re.M)
        if found:
            comment = " ".join(line.removeprefix("//").strip() for line in found[1].splitlines())
            sentence = re.match(r"%s:? (.*?)\.(?: |$)" % name, comment)
            if not sentence:
                raise SystemExit(f"{path}: the comment of {name} begins not with its name")
            return sentence[1].replace("|", "\\|")
    raise SystemExit(f"{package}: {name} has no comment")


def coverage(package, name):
    with tempfile.TemporaryDirectory() as folder:
        profile = os.path.join(folder, "profile")
        go("test", "-count=1", "-run", f"^{name}$", "-coverprofile", profile, "./" + package)
        total = go("tool", "cover", "-func", profile).splitlines()[-1]
    return round(float(total.split()[-1].rstrip("%")))


def main():
    rows = ["| package | fuzzer | holds | of its package | corpus |\n", "| --- | --- | --- | --- | --- |\n"]
    for package, name in targets():
        corpus = len(list((ROOT / package / "testdata/fuzz" / name).glob("*")))
        rows.append(f"| {package.removeprefix('internal/')} | {name} | {holds(package, name)} | {coverage(package, name)} % | {corpus} |\n")
    page = ROOT / "SECURITY.md"
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    page.write_text(before + START + "".join(rows) + END + after)


main()
