package journal

import "log/slog"

// The events, each with its entry in systemd/mandos.catalog. A MESSAGE_ID is
// never changed and never reused.
var (
	Ready          = Event{"14e191b884504ae6853178c471113da7", LevelNotice, "ready to serve clients"}
	SecretReleased = Event{"6d24e3670c5e42a599e080d1d73e7ae5", LevelAudit, "releasing a client's secret to it"}
	SecretUnsent   = Event{"ac91b66b2d6349b08aacf6e8f8d7b6ac", slog.LevelWarn, "a released secret could not be sent whole"}
	Refused        = Event{"400cc31a758b40479598eaf362f0ec03", LevelAudit, "refused a client its secret"}
	UnknownKey     = Event{"0f344615de9c4e79a86b2c8d31a0cebc", LevelAudit, "refused a peer with an unknown key"}

	CheckRequestRefused = Event{"622aa10fea884eaaac5495965c93027a", LevelAudit, "refused a request to run a checker"}
	CheckNotRun         = Event{"66f374b39d1e492287087016ca0a310e", slog.LevelWarn, "a checker could not be run"}
)

// Of the server, about peers that have proved nothing (yet).
var (
	Connected       = Event{"1e85a3c7eaf34684ad1b573982e23ae1", slog.LevelInfo, "a peer connected"}
	BadGreeting     = Event{"64d5da754d924ecf960b8e6dcc7b50b7", slog.LevelWarn, "a peer sent no proper greeting"}
	HandshakeFailed = Event{"3916836c00db4d8c8801343e6995bf80", slog.LevelWarn, "a TLS handshake failed"}
	HungUp          = Event{"de2d13ca0e164474be0c816e2cc90dfa", slog.LevelInfo, "a client hung up before it had its secret"}
	Evicted         = Event{"278c05eefaa944debd7d4c08897608d7", slog.LevelWarn, "cut off a session to make room for another"}
	SessionCut      = Event{"a68c43cdb3fd4b898084934484189576", slog.LevelInfo, "cut off a session, the server stops"}
	TurnedAway      = Event{"2815155a625141adbd9c2af09414ff6b", slog.LevelWarn, "turned a connection away, all sessions are in use"}
	AcceptFailed    = Event{"9345cb2014c042bd9309f10432eb5058", slog.LevelError, "could not accept a connection"}
	SessionCrashed  = Event{"30ba724a4b7144e39cad3d163d174434", LevelCritical, "a session crashed, which is a bug in mandos"}
	Suppressed      = Event{"007ef4986a4f41a2a4e40de2723892ce", slog.LevelWarn, "suppressed entries of one kind in the last minute"}
)

// Of the daemon.
var (
	Listening       = Event{"7385b9d531144b2db342c5850d5d54a4", LevelNotice, "listening for clients"}
	OptionOverruled = Event{"1506745ace1749798f49b6e96bb1f083", slog.LevelWarn, "an option has no effect, systemd made the socket"}
	NotBound        = Event{"a4c0186b004440a5912fbd0299284177", slog.LevelError, "could not bind to the interface, going on without"}
	Reloaded        = Event{"b4def96586f9476aa9730e7fa93cad7f", LevelNotice, "re-read the configuration"}
	ReloadFailed    = Event{"f86d3e907a0c447aab21b62a4c45b31a", slog.LevelError, "could not re-read the configuration, the old one stays"}
	WatchdogSilent  = Event{"71f2c15be83c4b98b06290ef47ba8121", LevelCritical, "a part of the server does not answer, the watchdog gets no ping"}
	NeedsRestart    = Event{"a926dce1de82439788ad05b0e968b0b5", slog.LevelWarn, "a changed option takes a restart to have its effect"}
	ConfigBroken    = Event{"0bf0afa999ff43baa7dc8c34d5f08ae0", slog.LevelError, "the configuration has an error"}
	ConfigSuspect   = Event{"5df926aa804b4fe4ac36d4e1eba0f804", slog.LevelWarn, "something in the configuration looks wrong"}
	OldStateTaken   = Event{"979dab2063794fbdb266faa0d1793d71", LevelNotice, "took over the state of the server before this one"}
	OldSecretLost   = Event{"f9799c123d8449d3a7cb9ae1ada2bbfb", slog.LevelWarn, "a secret that was set at run time must be set again"}
	OldSettingLost  = Event{"8926b0e60aea4e93b48ad22e7378fe5c", slog.LevelWarn, "a setting that was made at run time is not taken over"}
	Failed          = Event{"a818e45a82df446e80611135ef9f6048", LevelCritical, "giving up"}
	Stopping        = Event{"74e3485b3dbe46d395ea6f85344212ca", LevelNotice, "stopping"}
)

// Of the Zeroconf announcement.
var (
	Announced      = Event{"c54130d0a77e4cf9bcb74b5c10e8537a", LevelNotice, "announced by Zeroconf"}
	Renamed        = Event{"986e117f843d46d68669b39ffcf31386", LevelNotice, "the service name was taken, trying another one"}
	Withdrawn      = Event{"63771d4dc66646c39359f9449eff7ab5", slog.LevelInfo, "withdrew the Zeroconf announcement"}
	AvahiMissing   = Event{"0408f2eadfbf4f6db86429a48fc96b24", slog.LevelWarn, "waiting for avahi-daemon, until then only clients with a fixed address find this server"}
	AnnounceFailed = Event{"cec18de284134acabda99e6c1b744395", slog.LevelWarn, "could not announce by Zeroconf, trying again"}
	BusMissing     = Event{"ca47462af9644097b4fa0e8d8f8447c4", slog.LevelWarn, "no connection to the system bus, trying again"}
)

// Of the registry, about clients.
var (
	ClientNew         = Event{"d940019e9c9742ddac2e528cbf0fb02e", LevelAudit, "a new client is in clients.conf"}
	ClientInherits    = Event{"ac49df33cc8d41538d87cb4b8f7f2579", LevelAudit, "a client takes over what is known of its name and keys"}
	ClientGone        = Event{"45dbc22068db4efe97ac8d771a6bd632", LevelAudit, "a client was removed"}
	ClientKeptAway    = Event{"32c4004958464752b1921d90e3129f3c", LevelNotice, "a client that an operator removed stays away, though it is in clients.conf"}
	ClientEnabled     = Event{"677127605217424082eaf47e8b1915d9", LevelAudit, "a client was enabled"}
	ClientDisabled    = Event{"58c6063455ae49efbf944f9811ae68c8", LevelAudit, "a client was disabled"}
	ClientGrace       = Event{"a61eb48f444b4c72806d89106662fcec", LevelAudit, "a client gets time to boot once"}
	ClientVouched     = Event{"25b654787d064ae2906c4934ac550e91", LevelAudit, "an operator vouched for a client"}
	ClientChanged     = Event{"8300910f206d45a8b27c4665da152649", LevelNotice, "a setting of a client was changed"}
	ClientExpiresSoon = Event{"244414fc5eeb4fb190b821464c45565a", slog.LevelWarn, "a client will be disabled soon"}
	CheckFailed       = Event{"fa31255b05a2480ca8f4d68648c81675", slog.LevelWarn, "a client's checker failed for the first time"}
	CheckerEnded      = Event{"0d7e6c666320426197db9b8807da3155", slog.LevelInfo, "a client's checker ended"}
	ChecksCannotRun   = Event{"7cc3742285b3471eba411c25019824c3", slog.LevelError, "checkers could not be run, clients expire in their time"}
	ChecksRunAgain    = Event{"cc17f6e26fc5481e952a4e61af32f6b6", LevelNotice, "checkers can be run again"}
	ApprovalNeeded    = Event{"dd28f0608dca4f6fb750e9aad03dc7e5", LevelNotice, "a client waits for approval"}
	ClientApproved    = Event{"42ea8aecddb3456db78362b6497ffc27", LevelAudit, "an operator approved of a client"}
	ClientDenied      = Event{"34b99c13fc4c409e954991f14d20f09f", LevelAudit, "an operator denied a client its secret"}
	NotRestored       = Event{"c2b964565b48484dbaf7c67bdc3f15a1", slog.LevelWarn, "the saved state is left aside, clients start as clients.conf says"}
	StateNotSaved     = Event{"2c42adb207ec44628ab3f5867f88c726", slog.LevelError, "could not save the state of clients"}
	StateSavedAgain   = Event{"6e29538653944752bdb5e56a8bd9aaca", LevelNotice, "the state of clients is saved again"}
	ClockStepped      = Event{"92b360c62f0f45dcb6f514301a63f41e", slog.LevelWarn, "the clock was set, which changes nothing for clients"}
)

// Of the D-Bus service.
var (
	BusReady = Event{"1821fc96a6bb4938b104e9b1fe27c283", slog.LevelInfo, "serving operators over D-Bus"}
	BusLost  = Event{"0d420d62109f4708b8b79e378c6f2066", slog.LevelWarn, "not reachable over D-Bus; trying again"}
)
