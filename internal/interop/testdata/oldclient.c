/*
 * What a Mandos client on GnuTLS 3.0 to 3.5 does on the wire, with the real
 * library: it connects, sends "1\r\n", is a TLS server that shows an OpenPGP
 * key, and prints what it is sent.
 *
 *     oldclient HOST PORT PUBKEY SECKEY PRIORITY
 */
#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <gnutls/openpgp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char pem[] = "-----BEGIN DH PARAMETERS-----\n"
	"MIIBiAKCAYEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz\n"
	"+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a\n"
	"87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7\n"
	"YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi\n"
	"7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD\n"
	"ssbzSibBsu/6iGtCOGEfz9zeNVs7ZRkDW7w09N75nAI4YbRvydbmyQd62R0mkff3\n"
	"7lmMsPrBhtkcrv4TCYUTknC0EwyTvEN5RPT9RFLi103TZPLiHnH1S/9croKrnJ32\n"
	"nuhtK8UiNjoNq8Uhl5sN6todv5pC1cRITgq80Gv6U93vPBsg7j/VnXwl5B0rZsYu\n"
	"N///////////AgEC\n"
	"-----END DH PARAMETERS-----\n"; /* RFC 7919, section A.2 */
static const gnutls_datum_t ffdhe3072 = { (unsigned char *)pem, sizeof pem - 1 };

static int check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, gnutls_strerror(result));
		exit(1);
	}
	return result;
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fprintf(stderr, "usage: oldclient HOST PORT PUBKEY SECKEY PRIORITY\n");
		return 2;
	}
	struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_port = htons(atoi(argv[2])) };
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (inet_pton(AF_INET6, argv[1], &to.sin6_addr) != 1 || fd < 0 ||
	    connect(fd, (struct sockaddr *)&to, sizeof to) < 0 || write(fd, "1\r\n", 3) != 3) {
		perror("connecting");
		return 1;
	}

	gnutls_certificate_credentials_t keys;
	gnutls_dh_params_t group;
	gnutls_session_t session;
	check(gnutls_global_init(), "starting the library");
	check(gnutls_certificate_allocate_credentials(&keys), "credentials");
	check(gnutls_certificate_set_openpgp_key_file(keys, argv[3], argv[4], GNUTLS_OPENPGP_FMT_BASE64), "reading the key");
	check(gnutls_init(&session, GNUTLS_SERVER), "session");
	check(gnutls_priority_set_direct(session, argv[5], NULL), "priority string");
	check(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, keys), "setting the key");
	check(gnutls_dh_params_init(&group), "group");
	if (strstr(argv[5], "%COMPAT")) /* the library's own groups aren't safe primes */
		check(gnutls_dh_params_generate2(group, 2048), "making a group");
	else
		check(gnutls_dh_params_import_pkcs3(group, &ffdhe3072, GNUTLS_X509_FMT_PEM), "taking a group");
	gnutls_certificate_set_dh_params(keys, group);
	gnutls_transport_set_int(session, fd);

	int result;
	do
		result = gnutls_handshake(session);
	while (result < 0 && !gnutls_error_is_fatal(result));
	check(result, "handshake");
	fprintf(stderr, "GnuTLS %s: %s\n", gnutls_check_version(NULL), gnutls_session_get_desc(session));

	char buffer[4096];
	while ((result = check(gnutls_record_recv(session, buffer, sizeof buffer), "receiving")) > 0)
		fwrite(buffer, 1, result, stdout);
	gnutls_bye(session, GNUTLS_SHUT_RDWR);
	return fflush(stdout) != 0;
}
