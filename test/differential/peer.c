/*
 * The rules of rules.ts as a filter of libmilter, for the differential test: what libmilter makes of them is what
 * pmilter is compared with. It negotiates what its command line says and nothing else.
 *
 *     peer SOCKET PHASES exact|offered ACTIONS PROTOCOL [STAGE MACROS]...
 *
 * PHASES are the letters of the phases that have rules (cfrlnb...; in the others it says nothing), ACTIONS and PROTOCOL
 * numbers: with `exact` they are the answer to each offer, with `offered` what is wanted of it. A phase whose NR flag is
 * among PROTOCOL is not answered; if it has rules, its verdict is given with the next answer, as pmilter does.
 */
#include <arpa/inet.h>
#include <libmilter/mfapi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define TRACE_LIMIT 4000
#define RECIPIENTS_LIMIT 400
#define BIG_BODY_BYTES 70000
#define MAX_LISTS 8

static const char *phases;
static int is_exact;
static unsigned long wanted_actions, wanted_protocol;
static int list_stage[MAX_LISTS];
static char *list_names[MAX_LISTS];
static int list_count;

struct verdict {
  const char *word;
  sfsistat status;
  char *code, *enhanced;
  char *lines[4];
};

static const struct verdict VERDICTS[] = {
    {"accept", SMFIS_ACCEPT, NULL, NULL, {NULL}},
    {"discard", SMFIS_DISCARD, NULL, NULL, {NULL}},
    {"skip", SMFIS_SKIP, NULL, NULL, {NULL}},
    {"reject", SMFIS_REJECT, NULL, NULL, {NULL}},
    {"tempfail", SMFIS_TEMPFAIL, NULL, NULL, {NULL}},
    {"text5", SMFIS_REJECT, "550", "5.7.1", {"Not welcome here", NULL}},
    {"text4", SMFIS_TEMPFAIL, "451", "4.7.1", {"Try again later", NULL}},
    {"shut", SMFIS_TEMPFAIL, "421", "4.3.2", {"Going down", NULL}},
    {"lines5", SMFIS_REJECT, "554", "5.6.0", {"first line", "second line", "third", NULL}},
    {"lines4", SMFIS_TEMPFAIL, "450", "4.2.0", {"one", "two", NULL}},
    {"percent", SMFIS_REJECT, "550", "5.7.0", {"100%% no, %%s and %%%%", NULL}},
    {"utf8", SMFIS_REJECT, "553", "5.1.8", {"Zur\xc3\xbc"
                                            "ck \xe2\x86\x92",
                                            NULL}},
};
#define VERDICT_COUNT ((int)(sizeof VERDICTS / sizeof VERDICTS[0]))
static const struct verdict AT_EOH = {"", SMFIS_REJECT, "550", "5.7.1", {"At the end of the headers", NULL}};

enum {
  ADD, FOLD, TOP, MID, CHANGE, DROP, DROP2, RCPT, RCPTPAR, NORCPT, FROM, FROMPAR, FROMNULL, BODY, BODYBIG, BODYEMPTY,
  HOLD, CHANGE_COUNT
};
static const char *const CHANGES[CHANGE_COUNT] = {
    "eom-add", "eom-fold", "eom-top", "eom-mid", "eom-change", "eom-drop", "eom-drop2", "eom-rcpt", "eom-rcptpar",
    "eom-norcpt", "eom-from", "eom-frompar", "eom-fromnull", "eom-body", "eom-bodybig", "eom-bodyempty", "eom-hold"};

struct session {
  /* Of the connection. */
  char client[512];
  char helo[32];
  int aborts;
  /* Of the message. */
  int is_open;
  char trace[TRACE_LIMIT + 64];
  unsigned changes;
  int end;
  int skips_body;
  const struct verdict *deferred;
  char *recipient;      /* The first that was accepted. */
  char recipients[512]; /* All of them, hashed. */
  int subjects, drops;
};

static void forget_message(struct session *s) {
  s->is_open = 0;
  s->trace[0] = '\0';
  s->changes = 0;
  s->end = -1;
  s->skips_body = 0;
  s->deferred = NULL;
  free(s->recipient);
  s->recipient = NULL;
  s->recipients[0] = '\0';
  s->subjects = s->drops = 0;
}

static void hash(char *out, const unsigned char *bytes, size_t length) {
  uint32_t value = 0x811c9dc5;
  for (size_t at = 0; at < length; at++) value = (value ^ bytes[at]) * 0x01000193u;
  sprintf(out, "%zu.%x", length, value);
}

static struct session *get(SMFICTX *ctx) {
  struct session *s = smfi_getpriv(ctx);
  if (s == NULL) {
    s = calloc(1, sizeof *s);
    if (s == NULL) abort();
    forget_message(s);
    strcpy(s->client, "0.811c9dc5 unknown  0");
    strcpy(s->helo, "0.811c9dc5");
    smfi_setpriv(ctx, s);
  }
  return s;
}

static int has_rules(char phase) { return strchr(phases, phase) != NULL; }

static int contains(const char *text, size_t length, const char *prefix, const char *word) {
  char whole[64];
  int size = snprintf(whole, sizeof whole, "%s%s", prefix, word);
  return memmem(text, length, whole, (size_t)size) != NULL;
}

static int has_verdict(char phase, const char *word) {
  int is_ofconnection = phase == 'c' || phase == 'h';
  if (phase == 'u' && strcmp(word, "accept") == 0) return 0;
  if (strcmp(word, "discard") == 0) return !is_ofconnection && phase != 'u';
  if (strcmp(word, "skip") == 0) return phase == 'b';
  return 1;
}

struct text {
  const char *bytes;
  size_t length;
};

static const struct verdict *verdict_in(char phase, const char *prefix, const struct text *texts, int count) {
  for (int index = 0; index < VERDICT_COUNT; index++) {
    if (!has_verdict(phase, VERDICTS[index].word)) continue;
    for (int at = 0; at < count; at++) {
      if (contains(texts[at].bytes, texts[at].length, prefix, VERDICTS[index].word)) return &VERDICTS[index];
    }
  }
  return NULL;
}

static void see(struct session *s, char kind, const char *bytes, size_t length) {
  size_t used = strlen(s->trace);
  if (used < TRACE_LIMIT) {
    s->trace[used] = kind;
    hash(s->trace + used + 1, (const unsigned char *)bytes, length);
    strcat(s->trace, ";");
  }
  for (int bit = 0; bit < CHANGE_COUNT; bit++) {
    if (contains(bytes, length, "", CHANGES[bit])) s->changes |= 1u << bit;
  }
  if (s->end == -1) {
    struct text text = {bytes, length};
    const struct verdict *found = verdict_in('e', "end-", &text, 1);
    if (found != NULL) s->end = (int)(found - VERDICTS);
  }
}

static sfsistat say(SMFICTX *ctx, const struct verdict *v) {
  if (v->code == NULL) return v->status;
  int result;
  if (v->lines[1] == NULL) result = smfi_setreply(ctx, v->code, v->enhanced, v->lines[0]);
  else result = smfi_setmlreply(ctx, v->code, v->enhanced, v->lines[0], v->lines[1], v->lines[2], NULL);
  if (result != MI_SUCCESS) fprintf(stderr, "setreply %s failed\n", v->word);
  return v->status;
}

/* What a command of the connection, or an unknown one, is answered. */
static sfsistat answer(SMFICTX *ctx, unsigned long nr, const struct verdict *v) {
  if ((wanted_protocol & nr) != 0) return SMFIS_NOREPLY;
  return v == NULL ? SMFIS_CONTINUE : say(ctx, v);
}

/* What a command of the message is answered: a verdict that could not be given before comes first. */
static sfsistat answer_message(SMFICTX *ctx, struct session *s, unsigned long nr, const struct verdict *v) {
  if ((wanted_protocol & nr) != 0) {
    if (s->deferred == NULL && v != NULL) s->deferred = v;
    return SMFIS_NOREPLY;
  }
  if (s->deferred != NULL) v = s->deferred;
  if (v == NULL) return SMFIS_CONTINUE;
  forget_message(s);
  return say(ctx, v);
}

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2, unsigned long f3,
                             unsigned long *pf0, unsigned long *pf1, unsigned long *pf2, unsigned long *pf3) {
  (void)f2;
  (void)f3;
  *pf0 = is_exact ? wanted_actions : wanted_actions & f0;
  *pf1 = is_exact ? wanted_protocol : wanted_protocol & f1;
  *pf2 = *pf3 = 0;
  if ((*pf0 & SMFIF_SETSYMLIST) != 0) {
    for (int at = 0; at < list_count; at++) {
      if (smfi_setsymlist(ctx, list_stage[at], list_names[at]) != MI_SUCCESS) fprintf(stderr, "setsymlist failed\n");
    }
  }
  return SMFIS_CONTINUE;
}

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *addr) {
  struct session *s = get(ctx);
  char name[32], address[INET6_ADDRSTRLEN + 256] = "";
  const char *family = "unknown";
  int port = 0;
  if (addr != NULL && addr->sa_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
    family = "inet";
    inet_ntop(AF_INET, &in->sin_addr, address, sizeof address);
    port = ntohs(in->sin_port);
  } else if (addr != NULL && addr->sa_family == AF_INET6) {
    const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)addr;
    family = "inet6";
    inet_ntop(AF_INET6, &in->sin6_addr, address, sizeof address);
    port = ntohs(in->sin6_port);
  } else if (addr != NULL && addr->sa_family == AF_UNIX) {
    const struct sockaddr_un *un = (const struct sockaddr_un *)addr;
    family = "unix";
    snprintf(address, sizeof address, "%s", un->sun_path);
  }
  hash(name, (const unsigned char *)host, strlen(host));
  snprintf(s->client, sizeof s->client, "%s %s %s %d", name, family, address, port);
  s->aborts = 0;
  struct text text = {host, strlen(host)};
  return answer(ctx, SMFIP_NR_CONN, has_rules('c') ? verdict_in('c', "do-", &text, 1) : NULL);
}

static sfsistat on_helo(SMFICTX *ctx, char *name) {
  struct session *s = get(ctx);
  struct text text = {name, strlen(name)};
  /* Behind an unknown command libmilter does not call on_abort for the message that this ends. */
  forget_message(s);
  hash(s->helo, (const unsigned char *)name, text.length);
  return answer(ctx, SMFIP_NR_HELO, has_rules('h') ? verdict_in('h', "do-", &text, 1) : NULL);
}

/* The verdict of an envelope command; its first text is the address. */
static const struct verdict *look_at(struct session *s, char phase, char **argv) {
  struct text texts[16];
  int count = 0;
  for (; argv[count] != NULL && count < 16; count++) {
    texts[count].bytes = argv[count];
    texts[count].length = strlen(argv[count]);
    see(s, count == 0 ? phase : 'p', argv[count], texts[count].length);
  }
  return verdict_in(phase, "do-", texts, count);
}

static sfsistat on_envfrom(SMFICTX *ctx, char **argv) {
  struct session *s = get(ctx);
  forget_message(s);
  s->is_open = 1;
  return answer_message(ctx, s, SMFIP_NR_MAIL, has_rules('f') ? look_at(s, 'f', argv) : NULL);
}

static sfsistat on_envrcpt(SMFICTX *ctx, char **argv) {
  struct session *s = get(ctx);
  s->is_open = 1;
  const struct verdict *v = has_rules('r') ? look_at(s, 'r', argv) : NULL;
  if (v == NULL && s->recipient == NULL) s->recipient = strdup(argv[0]);
  if (v == NULL && strlen(s->recipients) < RECIPIENTS_LIMIT) {
    hash(s->recipients + strlen(s->recipients), (const unsigned char *)argv[0], strlen(argv[0]));
    strcat(s->recipients, ",");
  }
  if (v != NULL && (v->status == SMFIS_ACCEPT || v->status == SMFIS_DISCARD)) forget_message(s);
  return answer(ctx, SMFIP_NR_RCPT, v);
}

static sfsistat on_data(SMFICTX *ctx) {
  struct session *s = get(ctx);
  s->is_open = 1;
  if (has_rules('d')) see(s, 'd', "", 0);
  return answer_message(ctx, s, SMFIP_NR_DATA, NULL);
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value) {
  struct session *s = get(ctx);
  const struct verdict *v = NULL;
  s->is_open = 1;
  if ((wanted_protocol & SMFIP_HDR_LEADSPC) != 0 && *value == ' ') value++;
  if (strcasecmp(name, "Subject") == 0) s->subjects++;
  if (strcasecmp(name, "X-Drop") == 0) s->drops++;
  if (has_rules('l') && s->deferred == NULL) {
    struct text texts[] = {{name, strlen(name)}, {value, strlen(value)}};
    see(s, 'l', name, texts[0].length);
    see(s, 'v', value, texts[1].length);
    v = verdict_in('l', "do-", texts, 2);
  }
  return answer_message(ctx, s, SMFIP_NR_HDR, v);
}

static sfsistat on_eoh(SMFICTX *ctx) {
  struct session *s = get(ctx);
  const struct verdict *v = NULL;
  unsigned both = 1u << FOLD | 1u << TOP;
  s->is_open = 1;
  if (has_rules('n') && s->deferred == NULL) {
    see(s, 'n', "", 0);
    if ((s->changes & both) == both) v = &AT_EOH;
  }
  return answer_message(ctx, s, SMFIP_NR_EOH, v);
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *chunk, size_t length) {
  struct session *s = get(ctx);
  const struct verdict *v = NULL;
  s->is_open = 1;
  if (has_rules('b') && s->deferred == NULL && !s->skips_body) {
    struct text text = {(const char *)chunk, length};
    see(s, 'b', text.bytes, length);
    v = verdict_in('b', "do-", &text, 1);
    if (v != NULL && v->status == SMFIS_SKIP) {
      s->skips_body = 1;
      v = NULL;
    }
  }
  if (s->skips_body && (wanted_protocol & SMFIP_SKIP) != 0 && (wanted_protocol & SMFIP_NR_BODY) == 0) {
    return SMFIS_SKIP;
  }
  return answer_message(ctx, s, SMFIP_NR_BODY, v);
}

static int wants(const struct session *s, int change) { return (s->changes & 1u << change) != 0; }

/* A header value as it is sent: the space after the colon is the filter's to write if that was negotiated. */
static char *spaced(char *buffer, const char *value) {
  sprintf(buffer, "%s%s", (wanted_protocol & SMFIP_HDR_LEADSPC) != 0 ? " " : "", value);
  return buffer;
}

static void change(SMFICTX *ctx, struct session *s) {
  char value[TRACE_LIMIT + 1024], text[TRACE_LIMIT + 1000];
  static char *const macros[] = {"i", "{i}", "j", "{mail_addr}", "{rcpt_addr}", "{x}"};

  snprintf(text, sizeof text, "t %s %s", s->trace, s->recipients);
  smfi_addheader(ctx, "X-Trace", spaced(value, text));
  strcpy(text, "m");
  for (size_t at = 0; at < sizeof macros / sizeof macros[0]; at++) {
    const char *found = smfi_getsymval(ctx, macros[at]);
    snprintf(text + strlen(text), sizeof text - strlen(text), " %s", found == NULL ? "-" : found);
  }
  smfi_addheader(ctx, "X-Macros", spaced(value, text));
  snprintf(text, sizeof text, "%d", s->aborts);
  smfi_addheader(ctx, "X-Aborts", spaced(value, text));
  snprintf(text, sizeof text, "%s %s", s->client, s->helo);
  smfi_addheader(ctx, "X-Session", spaced(value, text));

  if (wants(s, ADD)) smfi_addheader(ctx, "X-Add", spaced(value, "added"));
  if (wants(s, FOLD)) smfi_addheader(ctx, "X-Fold", spaced(value, "one\n\ttwo\n three"));
  if (wants(s, TOP)) smfi_insheader(ctx, 0, "X-Top", spaced(value, "top"));
  if (wants(s, MID)) smfi_insheader(ctx, 1, "X-Mid", spaced(value, "mid"));
  if (wants(s, CHANGE) && s->subjects > 0) smfi_chgheader(ctx, "Subject", s->subjects, spaced(value, "changed"));
  if (wants(s, DROP2) && s->drops > 1) smfi_chgheader(ctx, "X-Drop", 2, NULL);
  if (wants(s, DROP) && s->drops > 0) smfi_chgheader(ctx, "X-Drop", 1, NULL);
  if (wants(s, NORCPT) && s->recipient != NULL && *s->recipient != '\0' && strcmp(s->recipient, "<>") != 0) {
    smfi_delrcpt(ctx, s->recipient);
  }
  if (wants(s, RCPT)) smfi_addrcpt(ctx, "<added@example.org>");
  if (wants(s, RCPTPAR)) smfi_addrcpt_par(ctx, "<par@example.org>", "NOTIFY=NEVER ORCPT=rfc822;x");
  if (wants(s, FROMNULL)) smfi_chgfrom(ctx, "<>", NULL);
  else if (wants(s, FROMPAR)) smfi_chgfrom(ctx, "<par@example.org>", "RET=HDRS ENVID=7");
  else if (wants(s, FROM)) smfi_chgfrom(ctx, "<new@example.org>", NULL);
  if (wants(s, BODYEMPTY)) smfi_replacebody(ctx, NULL, 0);
  else if (wants(s, BODYBIG)) {
    unsigned char *body = malloc(BIG_BODY_BYTES);
    if (body == NULL) abort();
    for (size_t at = 0; at < BIG_BODY_BYTES; at++) body[at] = (unsigned char)"big body\r\n"[at % 10];
    smfi_replacebody(ctx, body, BIG_BODY_BYTES);
    free(body);
  } else if (wants(s, BODY)) smfi_replacebody(ctx, (unsigned char *)"new\r\nbody\r\n", 11);
  if (wants(s, HOLD)) smfi_quarantine(ctx, "held for inspection");
}

static sfsistat on_eom(SMFICTX *ctx) {
  struct session *s = get(ctx);
  const struct verdict *v = s->deferred;
  if (v == NULL && has_rules('e')) {
    if (s->end != -1) v = &VERDICTS[s->end];
    if (v == NULL || v->status == SMFIS_ACCEPT) change(ctx, s);
  }
  forget_message(s);
  return v == NULL ? SMFIS_CONTINUE : say(ctx, v);
}

static sfsistat on_unknown(SMFICTX *ctx, const char *command) {
  struct text text = {command, strlen(command)};
  get(ctx);
  return answer(ctx, SMFIP_NR_UNKN, has_rules('u') ? verdict_in('u', "do-", &text, 1) : NULL);
}

static sfsistat on_abort(SMFICTX *ctx) {
  struct session *s = get(ctx);
  /* pmilter's handlers do not hear of the end of a message that they accepted. */
  if (s->is_open && (s->deferred == NULL || s->deferred->status != SMFIS_ACCEPT)) s->aborts++;
  forget_message(s);
  return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx) {
  struct session *s = smfi_getpriv(ctx);
  if (s != NULL) {
    forget_message(s);
    free(s);
    smfi_setpriv(ctx, NULL);
  }
  return SMFIS_CONTINUE;
}

int main(int argc, char **argv) {
  struct smfiDesc filter = {"peer",    SMFI_VERSION, 0,       on_connect, on_helo,  on_envfrom, on_envrcpt, on_header,
                            on_eoh,    on_body,      on_eom,  on_abort,   on_close, on_unknown, on_data,    on_negotiate};
  if (argc < 6) return 2;
  phases = argv[2];
  is_exact = strcmp(argv[3], "exact") == 0;
  wanted_actions = strtoul(argv[4], NULL, 10);
  wanted_protocol = strtoul(argv[5], NULL, 10);
  for (int at = 6; at + 1 < argc && list_count < MAX_LISTS; at += 2) {
    list_stage[list_count] = atoi(argv[at]);
    list_names[list_count++] = argv[at + 1];
  }
  if (smfi_setconn(argv[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS) return 1;
  if (smfi_opensocket(1) != MI_SUCCESS) return 1;
  /* It listens: whoever started it may connect. */
  puts("ready");
  fflush(stdout);
  return smfi_main() == MI_SUCCESS ? 0 : 1;
}
