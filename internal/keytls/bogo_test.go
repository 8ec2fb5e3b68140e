package keytls

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/bogo.txt and known/ anew")

// BoringSSL's runner has thousands of tests for every feature of TLS. This
// package has few of them, so most of those tests are left out; the rest pass.
// testdata/bogo.txt says which each test is, and TestBogo checks that.

// whyNot gives the word for a test that fails, from what the shim said about
// it: the first pattern that matches counts.
var whyNot = []struct {
	err  *regexp.Regexp
	word string
}{
	// The shim offers only TLS 1.3, which makes tests for older versions fail.
	{regexp.MustCompile(`refused with the alert (protocol_version|handshake_failure)`), "TLS 1.2"},
	{regexp.MustCompile(`the TLS client offers .*(at most|none is taken)`), "TLS 1.2"},
	{regexp.MustCompile(`sent CertificateRequest where Certificate belongs`), "client certificates"},
	{regexp.MustCompile(`a record of type 128`), "SSL 2 hello"},
}

// whyFailed are the tests that fail for a reason of their own.
var whyFailed = map[string]string{
	// The RFC asks for the alert that is sent here, or for none in
	// particular (RFC 8446, sections 4.2, 4.1.3, 5, 6 and 4.4.4).
	"EncryptedExtensionsWithKeyShare-TLS13":        "another alert",
	"TLS13-HRR-InvalidCompressionMethod":           "another alert",
	"TrailingMessageData-TLS13-ServerFinished-TLS": "another alert",
	"TrailingMessageData-TLS13-ClientFinished-TLS": "another alert",
	"UnencryptedEncryptedExtensions":               "another alert",
	"SendWarningAlerts-TLS13":                      "another alert",
	"SendBogusAlertType":                           "another alert",
	"DuplicateExtensionClient-TLS-TLS13":           "another alert",
	"DuplicateExtensionServer-TLS-TLS1":            "another alert",
	"DuplicateExtensionServer-TLS-TLS11":           "another alert",
	"DuplicateExtensionServer-TLS-TLS12":           "another alert",
	"DuplicateExtensionServer-TLS-TLS13":           "another alert",
	"GarbageCertificate-Client-TLS13":              "another alert",

	// They refuse the version in a record's header, which the RFC says to
	// ignore (section 5.1), and more than four alerts that mean nothing.
	"CheckRecordVersion-TLS13":             "laxer by the RFC",
	"SendUserCanceledAlerts-TooMany-TLS13": "another limit",

	// They need something in the hello, or in the certificate, that is BoringSSL's choice.
	"Client-VerifyDefault-ECDSA_P521_SHA512-TLS13": "other defaults",
	"Client-VerifyDefault-Ed25519-TLS13":           "other defaults",
	"Ed25519DefaultDisable-NoAccept":               "other defaults",
	"Ed25519DefaultDisable-NoAdvertise":            "other defaults",
	"HelloRetryRequest-Empty-TLS13":                "other defaults",
	"SendHelloRetryRequest-2-TLS13":                "other defaults",
	"MLKEMKeyShareIncludedSecond-X25519MLKEM768":   "other defaults",
	"MLKEMKeyShareIncludedThird-X25519MLKEM768":    "other defaults",
	"NotJustMLKEMKeyShare-X25519MLKEM768":          "other defaults",
	"RenegotiationInfo-Forbidden-TLS13":            "TLS 1.2", // they answer what only a hello for both versions has
	"EMS-Forbidden-TLS13":                          "TLS 1.2",
	"EmptySessionID-TLS13":                         "compatibility mode", // they want its ChangeCipherSpec without having asked
	"Server-JDK11-NoWorkaround-3":                  "compatibility mode",
	"TLS-ECH-Server-ECHInner-NotEmpty":             "ECH",

	// They send extensions, messages and keys that aren't known here, and so are ignored or refused.
	"Client-VerifyDefault-ML-DSA-44-TLS13":                            "kind of key",
	"Client-VerifyDefault-ML-DSA-65-TLS13":                            "kind of key",
	"Client-VerifyDefault-ML-DSA-87-TLS13":                            "kind of key",
	"DuplicateCertCompressionExt-TLS13":                               "certificate compression",
	"TLS-HintMismatch-CertificateCompression-ShimOnly":                "certificate compression",
	"ExtensionTrailingData-CertificateAuthorities-Server-TLS-TLS13":   "client certificates",
	"RejectEmptyCertificateAuthorities-Server-TLS-TLS13":              "client certificates",
	"ExtensionTrailingData-ServerName-Server-TLS-TLS13":               "SNI",
	"ExtensionTrailingData-TrustAnchors-ClientHello-Server-TLS-TLS13": "trust anchors",
	"TrustAnchors-EmptyID-ClientHello":                                "trust anchors",
	"PAKE-Extension-Duplicate":                                        "PAKE",
	"SkipEarlyData-TLS13":                                             "early data",
	"SkipEarlyData-SecondClientHelloEarlyData-TLS13":                  "early data",
	"SendEmptySessionTicket-TLS13":                                    "tickets", // none are sent to a client that can't resume
	"TLS13-Client-EmptyTicketFlags":                                   "tickets",
	"TLS13-Client-NonminimalTicketFlags":                              "tickets",
	"TLS13-DuplicateTicketEarlyDataSupport":                           "tickets",

	// They are about the content of X.509 certificates, where the plug of these
	// tests looks only at the key.
	"ECDSAKeyUsage-Client-TLS13":                                                                                         "X.509",
	"RSAKeyUsage-Client-WantSignature-GotEncipherment-TLS13":                                                             "X.509",
	"ServerCertificateType-Server-RejectsDefaultOnly-TLS13":                                                              "X.509",
	"CertificateSelection-Server-CertificateType-Unknown-RawPublicKey-MatchNone-TLS-TLS13":                               "another alert",
	"CertificateSelection-Server-CertificateType-Default-MatchesX509OverRawPublicKey-MatchNone-TLS-TLS13":                "another alert",
	"CertificateSelection-Server-CertificateType-Default-MatchesDelegatedCredentialOverRawPublicKey-MatchNone-TLS-TLS13": "another alert",
}

func TestBogo(t *testing.T) {
	runner := os.Getenv("BOGO_RUNNER")
	if runner == "" {
		t.Skip("run it by: make bogo BOGO_DIR=…/boringssl/ssl/test/runner")
	}
	results := runBogo(t, runner)
	table := filepath.Join("testdata", "bogo.txt")
	if *update {
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(results)) {
			fmt.Fprintf(&b, "%s\t%s\n", name, results[name])
		}
		if err := os.WriteFile(table, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := readBogoTable(t, table)
	for _, name := range slices.Sorted(maps.Keys(results)) {
		if got := results[name]; got != want[name] {
			t.Errorf("%s: %s, want %s", name, got, cmp.Or(want[name], "nothing: it isn't in the table"))
		}
	}
	for name := range want {
		if results[name] == "" {
			t.Errorf("%s is in the table, but wasn't run", name)
		}
	}
}

// TestBogoTable checks only the committed table.
func TestBogoTable(t *testing.T) {
	passed := 0
	for name, result := range readBogoTable(t, filepath.Join("testdata", "bogo.txt")) {
		switch {
		case result == "passed":
			passed++
		case strings.HasPrefix(result, "FAILED"):
			t.Errorf("%s: %s", name, result)
		}
	}
	if passed < 400 {
		t.Errorf("only %d tests passed", passed)
	}
}

func readBogoTable(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, result, ok := strings.Cut(lines.Text(), "\t")
		if !ok {
			t.Fatalf("%s: %q has no tab", file, lines.Text())
		}
		table[name] = result
	}
	return table
}

// runBogo runs all tests and returns for each "passed", "not applicable: WHY"
// or "FAILED: WHY".
func runBogo(t *testing.T, runner string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	shim, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	output := filepath.Join(dir, "results.json")
	transcripts, reasons := filepath.Join(dir, "transcripts"), filepath.Join(dir, "reasons")
	if err := os.Mkdir(reasons, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(runner, "-test.timeout", "30m", "-shim-path", shim, "-loose-errors", "-allow-unimplemented",
		"-transcript-dir", transcripts, // for the names of the tests, which the shim doesn't get otherwise
		"-json-output", output, "-pipe")
	cmd.Dir = filepath.Dir(runner)
	cmd.Env = append(os.Environ(), shimEnv+"="+reasons)
	log, runErr := cmd.CombinedOutput()
	text, err := os.ReadFile(output)
	if err != nil {
		t.Fatalf("%v, %v\n%s", runErr, err, log)
	}
	var found struct {
		Tests map[string]struct {
			Actual string `json:"actual"`
		} `json:"tests"`
	}
	if err := json.Unmarshal(text, &found); err != nil {
		t.Fatal(err)
	}
	results := map[string]string{}
	for name, r := range found.Tests {
		said, _ := os.ReadFile(filepath.Join(reasons, name))
		results[name] = bogoResult(name, r.Actual, string(said))
	}
	return results
}

func bogoResult(name, actual, said string) string {
	const not = "not applicable: "
	if actual == "PASS" {
		return "passed"
	}
	if word, ok := strings.CutPrefix(said, leftOutPrefix); ok && actual == "SKIP" {
		return not + word
	}
	if word := whyFailed[name]; word != "" {
		return not + word
	}
	for _, why := range whyNot {
		if why.err.MatchString(said) {
			return not + why.word
		}
	}
	return "FAILED: " + cmp.Or(strings.ReplaceAll(said, "\n", " "), "though it should not have succeeded")
}
