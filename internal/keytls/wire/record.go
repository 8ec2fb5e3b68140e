package wire

const (
	// HeaderLen is the length in bytes of a record's header.
	HeaderLen = 5
	// MaxPlaintext is the maximum length of a record's fragment in bytes (RFC
	// 8446, section 5.1).
	MaxPlaintext = 1 << 14
	// MaxCiphertext13 and MaxCiphertext12 are the same for protected records
	// (RFC 8446, section 5.2, and RFC 5246, section 6.2.3).
	MaxCiphertext13 = MaxPlaintext + 256
	MaxCiphertext12 = MaxPlaintext + 2048
)

// A Header precedes a record's fragment.
type Header struct {
	Type    ContentType
	Version Version // legacy_record_version
	Length  int     // of the fragment, in bytes: 0 to 65535
}

// AppendHeader appends the five bytes of h to dst.
func AppendHeader(dst []byte, h Header) []byte {
	return append(dst, byte(h.Type), byte(h.Version>>8), byte(h.Version), byte(h.Length>>8), byte(h.Length))
}

// ParseHeader reads the first five bytes of b, and nothing after them. It
// doesn't judge type, version or length.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, malformed("a record's header")
	}
	return Header{
		Type:    ContentType(b[0]),
		Version: Version(b[1])<<8 | Version(b[2]),
		Length:  int(b[3])<<8 | int(b[4]),
	}, nil
}
