//go:build !goexperiment.runtimesecret

package secret

// Erases reports whether this program was built with
// GOEXPERIMENT=runtimesecret.
const Erases = false

// Do calls f. If Erases is true, what f leaves on the stack and in registers
// is erased before Do returns, and what f allocates is erased as soon as the
// garbage collector finds it unused: see runtime/secret.
func Do(f func()) { f() }
