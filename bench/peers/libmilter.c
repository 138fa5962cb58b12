/*
 * The C filter on libmilter that pmilter is measured against: the callbacks of bench/handlers, which read the same
 * values and add the same header. It has no callback for the negotiation, as most filters have none, so libmilter
 * awaits a reply for every event that has a callback, and the body callback may not skip. A benchmark's peer, not an
 * example of a filter.
 *
 * Argument: the socket's path.
 */
#include <libmilter/mfapi.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

/* One for each thread, so that values are used and threads share no cache line. */
static __thread volatile size_t kept;

static void keep(const char *value)
{
	if (value != NULL)
		kept += strlen(value);
}

static void keep_macro(SMFICTX *ctx, char *name)
{
	keep(smfi_getsymval(ctx, name));
}

static sfsistat on_connect(SMFICTX *ctx, char *hostname, _SOCK_ADDR *address)
{
	char text[INET6_ADDRSTRLEN];

	if (address != NULL && address->sa_family == AF_INET)
		keep(inet_ntop(AF_INET, &((struct sockaddr_in *)address)->sin_addr, text, sizeof text));
	else if (address != NULL && address->sa_family == AF_INET6)
		keep(inet_ntop(AF_INET6, &((struct sockaddr_in6 *)address)->sin6_addr, text, sizeof text));
	keep(hostname);
	keep_macro(ctx, "{daemon_name}");
	return SMFIS_CONTINUE;
}

static sfsistat on_helo(SMFICTX *ctx, char *hostname)
{
	keep(hostname);
	keep_macro(ctx, "{cert_issuer}");
	keep_macro(ctx, "{cert_subject}");
	keep_macro(ctx, "{cipher_bits}");
	keep_macro(ctx, "{cipher}");
	keep_macro(ctx, "{tls_version}");
	return SMFIS_CONTINUE;
}

static sfsistat on_envfrom(SMFICTX *ctx, char **arguments)
{
	keep(arguments[0]);
	keep_macro(ctx, "{mail_addr}");
	keep_macro(ctx, "{auth_authen}");
	keep_macro(ctx, "{auth_author}");
	keep_macro(ctx, "{auth_type}");
	return strcmp(arguments[0], "<spam-from@example.com>") == 0 ? SMFIS_REJECT : SMFIS_CONTINUE;
}

static sfsistat on_envrcpt(SMFICTX *ctx, char **arguments)
{
	keep(arguments[0]);
	keep_macro(ctx, "{rcpt_addr}");
	return SMFIS_CONTINUE;
}

static sfsistat on_data(SMFICTX *ctx)
{
	(void)ctx;
	return SMFIS_CONTINUE;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
	(void)ctx;
	keep(name);
	keep(value);
	return SMFIS_CONTINUE;
}

static sfsistat on_eoh(SMFICTX *ctx)
{
	(void)ctx;
	return SMFIS_CONTINUE;
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *chunk, size_t length)
{
	size_t sum = 0;

	(void)ctx;
	for (size_t at = 0; at < length; at++)
		sum += chunk[at];
	kept += sum;
	return SMFIS_CONTINUE;
}

static sfsistat on_eom(SMFICTX *ctx)
{
	struct timeval now;

	keep_macro(ctx, "j");
	keep_macro(ctx, "i");
	gettimeofday(&now, NULL);
	kept += (size_t)now.tv_sec;
	return smfi_addheader(ctx, "X-Pmilter", "Enable") == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

static sfsistat on_close(SMFICTX *ctx)
{
	(void)ctx;
	return SMFIS_CONTINUE;
}

int main(int count, char **arguments)
{
	struct smfiDesc filter = {
		.xxfi_name = "bench",
		.xxfi_version = SMFI_VERSION,
		.xxfi_flags = SMFIF_ADDHDRS,
		.xxfi_connect = on_connect,
		.xxfi_helo = on_helo,
		.xxfi_envfrom = on_envfrom,
		.xxfi_envrcpt = on_envrcpt,
		.xxfi_data = on_data,
		.xxfi_header = on_header,
		.xxfi_eoh = on_eoh,
		.xxfi_body = on_body,
		.xxfi_eom = on_eom,
		.xxfi_close = on_close,
	};
	char address[512];

	if (count != 2) {
		fprintf(stderr, "usage: libmilter SOCKET\n");
		return 2;
	}
	snprintf(address, sizeof address, "unix:%s", arguments[1]);
	/* A unix socket with a full backlog refuses: all connections of the generator may come at once. */
	if (smfi_setbacklog(512) != MI_SUCCESS || smfi_setconn(address) != MI_SUCCESS ||
	    smfi_register(filter) != MI_SUCCESS) {
		fprintf(stderr, "libmilter: cannot listen on %s\n", address);
		return 1;
	}
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}
