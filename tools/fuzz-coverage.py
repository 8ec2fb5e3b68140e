#!/usr/bin/python3
"""Write the list of fuzzers into SECURITY.md: what each holds, and how much of
its package the seeds and the committed corpus reach: functions, and the part of
these functions' statements.

What each holds is the first sentence of its comment. The list is go test's own.
With packages as arguments (keytls store …), only their fuzzers run; of the others
the list keeps what it says.
"""
import os, pathlib, re, subprocess, sys, tempfile

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
    """Return how many functions of the package are reached, and how much of them."""
    with tempfile.TemporaryDirectory() as folder:
        profile = os.path.join(folder, "profile")
        go("test", "-count=1", "-run", f"^{name}$", "-coverprofile", profile, "./" + package)
        blocks = pathlib.Path(profile).read_text().splitlines()[1:]
        functions = go("tool", "cover", "-func", profile).splitlines()[:-1]
    starts = {}
    for line in functions:
        file, number, _ = line.split(":", 2)
        starts.setdefault(file, []).append(int(number))
    whole, reached = {}, {}
    for file, start, statements, count in (re.match(r"(.*):(\d+)\..* (\d+) (\d+)$", b).groups() for b in blocks):
        function = file, max((n for n in starts.get(file, []) if n <= int(start)), default=0)
        whole[function] = whole.get(function, 0) + int(statements)
        if count != "0":
            reached[function] = reached.get(function, 0) + int(statements)
    return len(reached), 100 * sum(reached.values()) // sum(whole[f] for f in reached)


def main():
    page = ROOT / "SECURITY.md"
    before, _, rest = page.read_text().partition(START)
    listed, _, after = rest.partition(END)
    rows = ["| package | fuzzer | holds | reaches functions | of their statements | corpus |\n", "| --- | --- | --- | --- | --- | --- |\n"]
    for package, name in targets():
        start = f"| {package.removeprefix('internal/')} | {name} | "
        old = [line for line in listed.splitlines(True) if line.startswith(start)]
        if old and sys.argv[1:] and package.removeprefix("internal/") not in sys.argv[1:]:
            rows += old
            continue
        corpus = len(list((ROOT / package / "testdata/fuzz" / name).glob("*")))
        functions, part = coverage(package, name)
        rows.append(f"{start}{holds(package, name)} | {functions} | {part} % | {corpus} |\n")
    page.write_text(before + START + "".join(rows) + END + after)


main()
