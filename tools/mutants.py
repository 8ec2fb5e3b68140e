#!/usr/bin/python3
"""Break a rule, and see whether a test notices: one line for each mutant.

The tree isn't changed: go test -overlay sees the broken file. A mutant that
survives without a reason, or no longer applies, makes the exit status 1. With
numbers as arguments, only those are tried; with --dry-run, it only says which
no longer apply. The last result of all is in
internal/registry/testdata/mutants.txt: make mutants writes it.
"""
import json, os, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
C, R, S = "internal/client/", "internal/registry/", "internal/store/"
MUTANTS = [  # file, what it says, what it says then; why that breaks no promise, if it doesn't
    (C + "status.go", "case !st.Enabled:\n", "case false:\n"),
    (C + "status.go", "now.Elapsed >= st.Deadline:", "now.Elapsed > st.Deadline+time.Minute:"),
    (C + "status.go", "if !approved {", "if false {"),
    (C + "status.go", 'case Disapproved:\n\t\treturn &Refusal{Denied, "an', 'case Disapproved + 9:\n\t\treturn &Refusal{Denied, "an'),
    (C + "status.go", "now.Elapsed >= c.Status.DecisionUntil", "now.Elapsed < c.Status.DecisionUntil"),
    (C + "step.go", "if s.now.Elapsed >= st.Deadline {", "if false {"),
    (C + "step.go", "if ev.Result.OK() {", "if true {"),
    (C + "step.go", "s.c.Status.Grace = false", ""),
    (C + "step.go", "if st.lives(s.now) {\n\t\tif s.expires(d) {", "{\n\t\tst.Enabled = true\n\t\tif s.expires(d) {"),
    (C + "step.go", "s.livesFor(s.c.Settings.ExtendedTimeout)", "s.livesFor(s.c.Settings.Timeout)"),
    (C + "step.go", "st.Deadline, st.WarnAt, st.NextCheck = 0, never, never\n\tst.CannotCheck = \"\"\n\ts.save(Now)", "st.Deadline, st.WarnAt, st.NextCheck = 0, never, never\n\tst.CannotCheck = \"\"\n\ts.save(Lazily)"),
    (C + "step.go", "if wasFailing == ev.Result.OK() {", "if wasFailing && ev.Result.OK() {"),
    (C + "step.go", "if wasFailing == ev.Result.OK() {", "if !wasFailing && !ev.Result.OK() {"),
    (C + "restore.go", "behind := now.Wall.Before(saved.At) || now.Wall.Before(seen)", "behind := false"),
    (C + "restore.go", "now.Wall.Before(saved.At) || now.Wall.Before(seen)", "now.Wall.Before(saved.At)"),
    (C + "restore.go", "return until.Sub(now.Wall)", "return until.Sub(saved.At)"),
    (C + "restore.go", " && !st.Grace:", ":"),
    (C + "restore.go", " && st.LastCheckerStatus == 0", ""),
    (C + "restore.go", "saved.Expires.After(seen) && ", ""),
    (C + "restore.go", "st.Grace = true\n\t\ts.expires(set.ExtendedTimeout)\n\t\tst.NextCheck = now.Elapsed\n\t\ts.save(Now)", "st.Grace = true\n\t\ts.expires(set.ExtendedTimeout)\n\t\tst.NextCheck = now.Elapsed"),
    (C + "restore.go", "if st.Enabled && !old.Enabled {", "if false {"),
    (C + "restore.go", "st.Deadline = min(st.Deadline, old.Deadline)", ""),
    (C + "restore.go", "if b.Enabled && b.Deadline <= now.Elapsed {", "if false {"),
    (C + "restore.go", "if old.Decision == Disapproved {", "if false {"),
    (C + "restore.go", "if old.Enabled && !set.Enabled {", "if set.Enabled && !st.Enabled {\n\t\tst.Enabled, st.Deadline = true, s.in(set.Timeout)\n\t}\n\tif old.Enabled && !set.Enabled {"),
    (R + "directory.go", "if refusal = e.c.Eligible(t.now, h.granted); refusal != nil {\n\t\t\treturn\n\t\t}", "if false {\n\t\t\treturn\n\t\t}"),
    (R + "directory.go", "else if _, refusal = r.claim(t, name, caller); refusal == nil {\n\t\t\trefusal = e.c.Eligible(t.now, h.granted)\n\t\t}", ""),
    (R + "directory.go", "e.waiters, e.grants = nil, nil", "e.waiters = nil"),
    (R + "directory.go", "e.grants = nil\n\t\tif e.c", "if e.c"),
    (R + "directory.go", "if e == nil || r.find(caller.Identity) != e {", "if e == nil {"),
    (R + "directory.go", "if refusal.Reason != client.Expired {", "if true {"),
    (R + "directory.go", "e.waiters, e.grants = nil, nil\n\te.revoke(refusal)", "e.waiters, e.grants = nil, nil"),
    (R + "registry.go", "if err = r.commit(t, Batch{Put: []Record{e.record(&next, t.now)}}); err != nil {", "if err = error(nil); err != nil {"),
    (R + "registry.go", "if !stricter(&e.c, &next, ev) {", "if true {"),
    (R + "registry.go", "if !stricter(&e.c, &next, ev) {", "if false {"),
    (R + "registry.go", "if was.Enabled && !st.Enabled {", "if false {"),
    (R + "registry.go", "saved = true\n", "saved = true\n\t\t\t\tr.unsaved[e] = struct{}{}\n", "saves once more what is saved already"),
    (R + "run.go", "b.Put = append(b.Put, e.record(&next, t.now))", ""),
    (R + "run.go", "if err != nil {\n\t\t\tfor _, e := range entries {", "if false {\n\t\t\tfor _, e := range entries {"),
    (R + "run.go", "for _, e := range r.byName {\n\t\tr.save(e, client.Soon)\n\t}", ""),
    (R + "reload.go", "if !set.KeyID.IsZero() && !claims(wanted.byKeyID[set.KeyID]) {", "if false {"),
    (R + "reload.go", "ts.Saved.Enabled && !status.Enabled}", "false}"),
    (R + "reload.go", "} else if ts, ok := r.tombstones[id]; ok {", "} else if ts, ok := r.tombstones[id]; ok && false {"),
    (R + "reload.go", "case claims(claimant):\n\t\t\tp.reclaimed = append(p.reclaimed, id)", "case claims(claimant):",
        "while a name or key is held its holder stands for it, and when it is let go the tombstone is written anew"),
    (R + "reload.go", "return r.tombstones[Identity{ByName, name}].removed }", "return false }"),
    (R + "reload.go", "p.putTombstone(t, id, tombstone{status: next.Status.Tombstone(t.now), removed: id.Kind == ByName})", "_ = id"),
    (R + "reload.go", "ts.removed = false // clients.conf no longer lists it", ""),
    (S + "store.go", "if found.Items != sum.Items || found.Sum != sum.Sum {", "if false {"),
    (S + "store.go", "if sum != checksum(bucket, key, item[0], item[itemHeader:]) {", "if false {"),
    (S + "store.go", "case info.Size() == 0:", "case info.Size() < 0:", "verify refuses an empty file, too, in other words"),
    (S + "store.go", "case v > version:", "case v > version+1:"),
    (S + "verify.go", "if native.Uint64(meta[56:]) != metaSum(meta[:56]) {", "if false {"),
    (S + "verify.go", "if id >= uint64(len(w.used)) || w.used[id] {", "if id >= uint64(len(w.used)) {"),
    (C + "status.go", "st.Enabled && now.Elapsed < st.Deadline", "st.Enabled"),
    (R + "directory.go", "if e.c.Settings.ApprovalDelay > 0 {\n\t\t\te.revoke(refusal)", "if false {\n\t\t\te.revoke(refusal)"),
    (R + "reload.go", "c.next.Status.Pending = e.c.Status.Pending\n", ""),
    (R + "reload.go", "c.effects = append(c.effects, client.StopChecker{})\n", ""),
    (R + "directory.go", "if refusal == nil { // no later", "if false { // nor"),
    (R + "directory.go", "if err != nil {\n\t\t\trefusal = &client.Refusal{Reason: client.Faulty", "if false {\n\t\t\trefusal = &client.Refusal{Reason: client.Faulty"),
    (R + "reload.go", "p.batch.Put = append(p.batch.Put, pl.record(now))", ""),
    (R + "reload.go", "delete(r.byName, set.Name)", ""),
    (S + "store.go", "sum.Sum -= binary.BigEndian.Uint64(old[1:])", ""),
    (R + "reload.go", "if !set.Fingerprint.IsZero() && !claims(wanted.byPrint[set.Fingerprint]) {", "if false {"),
    (R + "reload.go", "p.putTombstone(t, Identity{ByName, set.Name}, tombstone{status: e.c.Status.Tombstone(t.now)})", ""),
    (R + "reload.go", "p.batch.Put = append(p.batch.Put, pl.record(t.now))", ""),
    (R + "reload.go", "stays[i] = e.configured.says(set) && e.hasKeysOf(set)", "stays[i] = true"),
    (R + "reload.go", "if set != nil && set.KeyID == rec.Current.KeyID && set.Fingerprint == rec.Current.Fingerprint {", "if set != nil {"),
    (R + "reload.go", "if !ownSecret || d != was.SecretDigest {", "if !ownSecret {"),
    (R + "reload.go", "pl.next.Settings.Secret = pl.secret\n", ""),
    (R + "reload.go", "e.c.Settings.Secret = pl.secret\n", ""),
    (R + "reload.go", "if pl.change != nil && pl.rekeyed {", "if false {"),
    (R + "reload.go", "if pl.rekeyed {\n\t\t\te.cutOff", "if false {\n\t\t\te.cutOff"),
    (R + "reload.go", "for _, e := range r.byName {\n\t\t\t\t\tr.save(e, client.Soon) // a commit that fails may be on disk all the same\n\t\t\t\t}", ""),
    (R + "reload.go", "r.save(e, client.Soon) // a commit that fails may be on disk all the same\n\t\t\treturn", "return"),
    (R + "registry.go", "r.save(e, client.Soon) // a commit that fails may be on disk all the same", ""),
    (R + "directory.go", "granted = ok && t.now.Elapsed < until", "granted = ok || t.now.Elapsed < until"),
    (R + "directory.go", "delete(e.grants, caller)\n\t\tif refusal", "if refusal"),
    (R + "directory.go", "if h.cut = cut; h.over != nil {", "if h.cut = cut; false {"),
    (R + "directory.go", "e.handouts[h] = struct{}{}\n", ""),
    (R + "directory.go", "case id.KeyID.IsOfNothing():", "case false:"),
    (R + "directory.go", "case e.c.CurrentDecision(t.now) == client.Approved:", "case true:"),
    (R + "directory.go", "!decided && !hungUp && !e.c.Settings.ApprovedByDefault", "false"),
    (C + "restore.go", "st.Grace = st.Grace || old.Grace", ""),
    (C + "restore.go", "if st.Decision != saved.Decision {", "if false {"),
    (C + "status.go", "case now.Elapsed >= st.Deadline:\n", "case now.Elapsed > st.Deadline:\n"),
    (C + "step.go", "if st.lives(s.now) {\n\t\treturn", "if false {\n\t\treturn"),
    (C + "step.go", "s.save(Now) // what has disabled it before may not have been saved", ""),
    (R + "directory.go", "else if _, refusal = r.claim(t, name, caller); refusal == nil {", "else {"),
    (R + "directory.go", "r.settle(name, refusal))\n\t}\n\tout.OnRevoked", "refusal)\n\t}\n\tout.OnRevoked"),
    (R + "registry.go", "r.watchClock(t)\n\t\tf(t)", "f(t)"),
    (R + "registry.go", "case client.Deny, client.Disable:", "case client.Deny:"),
    (R + "registry.go", "e.recheck(t.now)\n", ""),
    (R + "directory.go", "if !hungUp && !decided {", "if !hungUp {"),
]
# The tests that are about the rules; those that kill processes take minutes
# and find nothing more.
TESTS = {C: [("registry",), ("client",)], R: [("registry",)], S: [("store", "-skip", "TestCrash|TestFullDisk|TestNoRoom|TestReadOnly")]}


def run(mutant):
    path, old, new, *harmless = mutant
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
    return "equivalent: " + harmless[0] if harmless else "SURVIVES"


def dry_run():
    stale = [f"{i} {path}: {old!r}" for i, (path, old, *_) in enumerate(MUTANTS) if old not in open(os.path.join(ROOT, path)).read()]
    if stale:
        sys.exit("tools/mutants.py has mutants of code that is gone:\n" + "\n".join(stale))


def main():
    if sys.argv[1:] == ["--dry-run"]:
        return dry_run()
    bad = 0
    only = [int(a) for a in sys.argv[1:]] or range(len(MUTANTS))
    for i in only:
        result = run(MUTANTS[i])
        if not result.startswith(("caught", "equivalent")):
            bad += 1
        path, old, new, *_ = MUTANTS[i]
        print(f"{i:2} {path}: {old.strip().splitlines()[0][:60]!r} -> {new.strip()[:30]!r}: {result}", flush=True)
    print(f"{len(only)} mutants, {bad} not caught")
    sys.exit(bad > 0)


main()
