#!/usr/bin/python3
"""Break a rule, and see whether a test notices: one line for each mutant.

The tree isn't changed: go test -overlay sees the broken file. A mutant that
survives without a reason, or no longer applies, makes the exit status 1. With
numbers as arguments, only those are tried. The last result of all is in
internal/registry/testdata/mutants.txt: make mutants writes it.
"""
import json, os, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
C, R, S = "internal/client/", "internal/registry/", "internal/store/"
MUTANTS = [  # file, what it says, what it says then
    (C + "status.go", "case !st.Enabled:\n", "case false:\n"),
    (C + "status.go", "now.Elapsed >= st.Deadline:", "now.Elapsed > st.Deadline+time.Minute:"),
    (C + "status.go", "if !approved {", "if false {"),
    (C + "status.go", 'case Disapproved:\n\t\treturn &Refusal{Denied, "an', 'case Disapproved + 9:\n\t\treturn &Refusal{Denied, "an'),
    (C + "status.go", "now.Elapsed >= c.Status.DecisionUntil", "now.Elapsed < c.Status.DecisionUntil"),
    (C + "step.go", "if s.now.Elapsed >= st.Deadline {", "if false {"),
    (C + "step.go", "if ev.Result.OK() {", "if true {"),
    (C + "step.go", "st.Grace = false\n\t\ts.checkedOK", "s.checkedOK"),
    (C + "step.go", "if st.lives(s.now) {\n\t\tif s.expires(d) {", "{\n\t\tst.Enabled = true\n\t\tif s.expires(d) {"),
    (C + "step.go", "s.checkedOK(s.c.Settings.ExtendedTimeout)", "s.checkedOK(s.c.Settings.Timeout)"),
    (C + "step.go", "st.Deadline, st.WarnAt, st.NextCheck = 0, never, never\n\tst.CannotCheck = \"\"\n\ts.save(Now)", "st.Deadline, st.WarnAt, st.NextCheck = 0, never, never\n\tst.CannotCheck = \"\"\n\ts.save(Lazily)"),
    (C + "step.go", "urgency = Soon\n\t\t\tif st.Enabled", "if st.Enabled"),
    (C + "restore.go", "behind := gone < 0 || now.Wall.Before(seen)", "behind := false"),
    (C + "restore.go", "gone < 0 || now.Wall.Before(seen)", "gone < 0"),
    (C + "restore.go", "return until.Sub(saved.At) - gone", "return until.Sub(saved.At)"),
    (C + "restore.go", " && !st.Grace:", ":"),
    (C + "restore.go", " && st.LastCheckerStatus == 0", ""),
    (C + "restore.go", "saved.Expires.After(seen) && ", ""),
    (C + "restore.go", "st.Grace = true\n\t\ts.expires(set.ExtendedTimeout)\n\t\tst.NextCheck = now.Elapsed\n\t\ts.save(Now)", "st.Grace = true\n\t\ts.expires(set.ExtendedTimeout)\n\t\tst.NextCheck = now.Elapsed"),
    (C + "restore.go", "if st.Enabled && !old.Enabled {", "if false {"),
    (C + "restore.go", "st.Deadline = min(st.Deadline, old.Deadline)", ""),
    (C + "restore.go", "if b.Enabled && b.Deadline <= now.Elapsed {", "if false {"),
    (C + "restore.go", "if old.Decision == Disapproved {", "if false {"),
    (C + "restore.go", "if old.Enabled && !set.Enabled {", "if set.Enabled && !st.Enabled {\n\t\tst.Enabled, st.Deadline = true, s.in(set.Timeout)\n\t}\n\tif old.Enabled && !set.Enabled {"),
    (R + "directory.go", "if refusal = e.c.Eligible(t.now, granted); refusal != nil {\n\t\t\treturn\n\t\t}", "if false {\n\t\t\treturn\n\t\t}"),
    (R + "directory.go", "default:\n\t\t\trefusal = e.c.Eligible(t.now, granted)", "default:"),
    (R + "directory.go", "e.waiters, e.grants = nil, nil", "e.waiters = nil"),
    (R + "directory.go", "e.grants = nil\n\t\tif e.c", "if e.c"),
    (R + "directory.go", "if e == nil || r.find(caller.Identity) != e {", "if e == nil {"),
    (R + "directory.go", "func (r *Registry) settle(name string) {\n", "func (r *Registry) settle(name string) {\n\tif true {\n\t\treturn\n\t}\n"),
    (R + "directory.go", "e.waiters, e.grants = nil, nil\n\te.revoke()", "e.waiters, e.grants = nil, nil"),
    (R + "registry.go", "if err = r.commit(t, Batch{Put: []Record{e.record(&next, t.now)}}); err != nil {", "if err = error(nil); err != nil {"),
    (R + "registry.go", "if !stricter(&e.c, &next, ev) {", "if true {"),
    (R + "registry.go", "if !stricter(&e.c, &next, ev) {", "if false {"),
    (R + "registry.go", "if was.Enabled && !st.Enabled {", "if false {"),
    (R + "registry.go", "saved = true\n", "saved = true\n\t\t\t\tr.unsaved[e] = struct{}{}\n"),  # equivalent but for work
    (R + "run.go", "b.Put = append(b.Put, e.record(&next, t.now))", ""),
    (R + "run.go", "if err != nil {\n\t\t\tfor _, e := range entries {", "if false {\n\t\t\tfor _, e := range entries {"),
    (R + "run.go", "for _, e := range r.byName {\n\t\tr.save(e, client.Soon)\n\t}", ""),
    (R + "reload.go", "if !claimed[id] {\n\t\t\tp.bury", "if false {\n\t\t\tp.bury"),
    (R + "reload.go", "; g.Saved.Enabled && !now.status.Enabled {", "; false && !now.status.Enabled {"),
    (R + "reload.go", "} else if g, ok := r.graves[id]; ok {", "} else if g, ok := r.graves[id]; ok && false {"),
    (R + "reload.go", "case claimed[id]:\n\t\t\tp.unbury = append(p.unbury, id)", "case claimed[id]:"),
    (R + "reload.go", "if r.graves[Identity{ByName, set.Name}].removed {", "if false {"),
    (R + "reload.go", "p.bury(t, id, grave{status: next.Status.Buried(t.now), removed: id.Kind == ByName})", "_ = id"),
    (R + "reload.go", "g.removed = false // clients.conf has let go of it", ""),
    (S + "store.go", "if found.Items != sum.Items || found.Sum != sum.Sum {", "if false {"),
    (S + "store.go", "if sum != checksum(bucket, key, item[0], item[itemHeader:]) {", "if false {"),
    (S + "store.go", "case info.Size() == 0:", "case info.Size() < 0:"),
    (S + "store.go", "case v > version:", "case v > version+1:"),
    (S + "verify.go", "if native.Uint64(meta[56:]) != fnv1a(meta[:56]) {", "if false {"),
    (S + "verify.go", "if id >= uint64(len(w.used)) || w.used[id] {", "if id >= uint64(len(w.used)) {"),
    (C + "status.go", "st.Enabled && now.Elapsed < st.Deadline", "st.Enabled"),
    (R + "directory.go", "if e.c.Settings.ApprovalDelay > 0 {\n\t\t\te.revoke()", "if false {\n\t\t\te.revoke()"),
    (R + "reload.go", "pl.next.Status.Pending = e.c.Status.Pending\n", ""),
    (R + "reload.go", "pl.effects = append(pl.effects, client.StopChecker{})\n", ""),
    (R + "directory.go", "case h.over || e.gone:", "case false:"),
    (R + "directory.go", "case err != nil:\n\t\t\trefusal = &client.Refusal{Reason: client.Faulty", "case false:\n\t\t\trefusal = &client.Refusal{Reason: client.Faulty"),
    (R + "reload.go", "p.batch.Put = append(p.batch.Put, pl.e.record(&pl.next, now))", ""),
    (R + "reload.go", "delete(r.byName, set.Name)", ""),
    (S + "store.go", "w.sum.Sum -= binary.BigEndian.Uint64(old[1:])", ""),
]
# Those that break no promise, and why.
EQUIVALENT = {
    42: "while a name or key is held its holder stands for it, and when it is let go the grave is written anew",35: "saves once more what is saved already", 48: "verify refuses an empty file, too, in other words"}
# The tests that are about the rules; those that kill processes take minutes
# and find nothing more.
TESTS = {C: [("registry",), ("client",)], R: [("registry",)], S: [("store", "-skip", "TestCrash|TestFullDisk|TestNoRoom|TestReadOnly")]}


def run(number, mutant):
    path, old, new = mutant
    with open(os.path.join(ROOT, path)) as f:
        text = f.read()
    if old not in text:
        return "DOES NOT APPLY"
    with tempfile.TemporaryDirectory() as temp:
        broken, overlay = os.path.join(temp, "broken.go"), os.path.join(temp, "overlay.json")
        with open(broken, "w") as f:
            f.write(text.replace(old, new, 1))
        with open(overlay, "w") as f:
            json.dump({"Replace": {os.path.join(ROOT, path): broken}}, f)
        for package, *flags in TESTS[path[:path.rindex("/") + 1]]:
            cmd = ["go", "test", "-overlay", overlay, "-vet=off", "-failfast", "-timeout", "100s", *flags, "./internal/" + package]
            if package == "registry":
                cmd += ["-args", "-rapid.shrinktime=100ms", "-rapid.nofailfile"]
            p = subprocess.run(cmd, cwd=ROOT, capture_output=True, text=True)
            if p.returncode:
                if "[build failed]" in p.stdout + p.stderr:
                    return "DOES NOT BUILD: " + (p.stdout + p.stderr)[:300]
                tests = sorted({l.split()[2].split("/")[0] for l in p.stdout.splitlines() if l.lstrip().startswith("--- FAIL")})
                return "caught by " + (", ".join(tests) or package)
    return "equivalent: " + EQUIVALENT[number] if number in EQUIVALENT else "SURVIVES"


def main():
    bad = 0
    only = [int(a) for a in sys.argv[1:]] or range(len(MUTANTS))
    for i in only:
        result = run(i, MUTANTS[i])
        if not result.startswith(("caught", "equivalent")):
            bad += 1
        path, old, new = MUTANTS[i]
        print(f"{i:2} {path}: {old.strip().splitlines()[0][:60]!r} -> {new.strip()[:30]!r}: {result}", flush=True)
    print(f"{len(only)} mutants, {bad} not caught")
    sys.exit(bad > 0)


main()
