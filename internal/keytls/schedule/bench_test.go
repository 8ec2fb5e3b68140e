package schedule

import (
	"testing"

	"mandos/internal/keytls/wire"
)

// BenchmarkSchedule is everything that one side of a handshake needs of the key
// schedule.
func BenchmarkSchedule(b *testing.B) {
	for _, id := range []wire.Suite{wire.AES256GCM, wire.AES128GCM} {
		b.Run(id.String(), func(b *testing.B) {
			b.ReportAllocs()
			suite := suiteFor(b, id)
			transcript := make([]byte, suite.NewHash().Size())
			for b.Loop() {
				hs := NewEarly(suite).Handshake(make([]byte, 32), transcript)
				hs.Server.Protection()
				hs.Client.Protection()
				hs.Server.Finished(transcript)
				app := hs.Application(transcript)
				hs.Client.Finished(transcript)
				app.Server.Protection()
				app.Client.Protection()
				hs.Wipe()
			}
		})
	}
}
