package wire

import "fmt"

// An Alert is an alert's description (RFC 8446, section 6).
type Alert uint8

const (
	CloseNotify            Alert = 0
	UnexpectedMessage      Alert = 10
	BadRecordMAC           Alert = 20
	RecordOverflow         Alert = 22
	HandshakeFailure       Alert = 40
	BadCertificate         Alert = 42
	UnsupportedCertificate Alert = 43
	CertificateRevoked     Alert = 44
	CertificateExpired     Alert = 45
	CertificateUnknown     Alert = 46
	IllegalParameter       Alert = 47
	UnknownCA              Alert = 48
	AccessDenied           Alert = 49
	DecodeError            Alert = 50
	DecryptError           Alert = 51
	ProtocolVersion        Alert = 70
	InsufficientSecurity   Alert = 71
	InternalError          Alert = 80
	InappropriateFallback  Alert = 86
	UserCanceled           Alert = 90
	NoRenegotiation        Alert = 100 // TLS 1.2
	MissingExtension       Alert = 109
	UnsupportedExtension   Alert = 110
	UnrecognizedName       Alert = 112
	CertificateRequired    Alert = 116
	NoApplicationProtocol  Alert = 120
)

var alertNames = map[Alert]string{
	CloseNotify:            "close_notify",
	UnexpectedMessage:      "unexpected_message",
	BadRecordMAC:           "bad_record_mac",
	RecordOverflow:         "record_overflow",
	HandshakeFailure:       "handshake_failure",
	BadCertificate:         "bad_certificate",
	UnsupportedCertificate: "unsupported_certificate",
	CertificateRevoked:     "certificate_revoked",
	CertificateExpired:     "certificate_expired",
	CertificateUnknown:     "certificate_unknown",
	IllegalParameter:       "illegal_parameter",
	UnknownCA:              "unknown_ca",
	AccessDenied:           "access_denied",
	DecodeError:            "decode_error",
	DecryptError:           "decrypt_error",
	ProtocolVersion:        "protocol_version",
	InsufficientSecurity:   "insufficient_security",
	InternalError:          "internal_error",
	InappropriateFallback:  "inappropriate_fallback",
	UserCanceled:           "user_canceled",
	NoRenegotiation:        "no_renegotiation",
	MissingExtension:       "missing_extension",
	UnsupportedExtension:   "unsupported_extension",
	UnrecognizedName:       "unrecognized_name",
	CertificateRequired:    "certificate_required",
	NoApplicationProtocol:  "no_application_protocol",
}

func (a Alert) String() string {
	if name, ok := alertNames[a]; ok {
		return name
	}
	return fmt.Sprintf("alert %d", uint8(a))
}

// Alert levels (RFC 8446, section 6). TLS 1.3 goes by the description alone.
const (
	LevelWarning = 1
	LevelFatal   = 2
)

// MarshalAlert returns the two bytes of an alert: level and description.
// close_notify and user_canceled are warnings, all others fatal.
func MarshalAlert(a Alert) []byte {
	if a == CloseNotify || a == UserCanceled || a == NoRenegotiation {
		return []byte{LevelWarning, byte(a)}
	}
	return []byte{LevelFatal, byte(a)}
}

// ParseAlert reads an alert: exactly two bytes, the first of them 1 or 2.
func ParseAlert(b []byte) (level uint8, a Alert, err error) {
	if len(b) != 2 || b[0] != LevelWarning && b[0] != LevelFatal {
		return 0, 0, malformed("an alert")
	}
	return b[0], Alert(b[1]), nil
}
