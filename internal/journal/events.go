package journal

import "log/slog"

// The events, each with its entry in systemd/mandos.catalog. A MESSAGE_ID is
// never changed and never used again.
var (
	Ready          = Event{"14e191b884504ae6853178c471113da7", LevelNotice, "ready to serve clients"}
	SecretReleased = Event{"6d24e3670c5e42a599e080d1d73e7ae5", LevelAudit, "releasing a client's secret to it"}
	SecretUnsent   = Event{"ac91b66b2d6349b08aacf6e8f8d7b6ac", slog.LevelWarn, "a released secret could not be sent whole"}
	Refused        = Event{"400cc31a758b40479598eaf362f0ec03", LevelAudit, "refused a client its secret"}
	UnknownKey     = Event{"0f344615de9c4e79a86b2c8d31a0cebc", LevelAudit, "refused a peer with an unknown key"}

	CheckRequestRefused = Event{"622aa10fea884eaaac5495965c93027a", LevelAudit, "refused a request to run a checker"}
	CheckNotRun         = Event{"66f374b39d1e492287087016ca0a310e", slog.LevelWarn, "a checker could not be run"}
)
