//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

const Erases = true

func Do(f func()) { secret.Do(f) }
