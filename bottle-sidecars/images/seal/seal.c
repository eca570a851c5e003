/*
 * seal: owns a network namespace: as the service `seal` the agent's, as `outlet` pipelock's.
 *
 *   seal HOST[:PORT[:CONNECTIONS]]...   sets the rules for the agent, then waits for a signal to stop
 *   seal outlet USER:OWN PORT...        the same for pipelock, whose process has the user id USER and listens on port OWN
 *   seal check                          prints its own rules; fails if they are not set
 *   seal store                          sets no rules and waits, for a container that keeps files in memory
 *
 * Rules of the outlet: TCP to each PORT at any address may leave, and what names and IPv6 need. Pipelock has no rule for
 * ports of its own.
 *
 * Rules of the seal: they let these packets leave the namespace, and no others: TCP to each PORT, at the address of every HOST. A sidecar
 * that the engine restarts may get another sidecar's address, so a port is open at all of them. With CONNECTIONS, a further
 * connection to the port waits until one of them ends.
 *
 * A network without a route is not enough. A socket that is bound to the interface needs neither a route nor a privilege, and
 * its datagrams reach every address of the host. The rules belong to the namespace. Changing them takes CAP_NET_ADMIN, which
 * no process of the agent has.
 *
 * Everything is closed first. Names are resolved once, before the agent's container starts: later, the agent could forge the
 * resolver's answers, since it shares this namespace.
 *
 * Afterwards nobody has a reason to change the rules, in any table, but the engine those of its resolver. If somebody does, the
 * kernel tells, everything is closed, and the program fails: the engine then removes the namespace's network, and reports a
 * container that has ended.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Address of the engine's resolver in a container. */
#define RESOLVER "127.0.0.11"

enum { MAX_ENDPOINTS = 24, RESOLVE_MILLISECONDS = 60000, PAUSE_MILLISECONDS = 20 };

/* Of the kernel's interface, whose headers are not those of the C library. */
enum { NETLINK_NETFILTER = 12, GROUP_NFTABLES = 7, SUBSYSTEM_NFTABLES = 10, NEW_GENERATION = 15, ATTRIBUTE_TABLE = 1 };
enum { MESSAGE_HEADER = 16, FAMILY_HEADER = 4, ATTRIBUTE_HEADER = 4, ATTRIBUTE_TYPE = 0x3fff };

struct endpoint {
    char host[256];
    char address[INET_ADDRSTRLEN];
    long port;        /* 0 if no port of this host is open */
    long connections; /* 0 if their number is not limited */
};

static char rules[32768];
static size_t used;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("seal: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void append(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(rules + used, sizeof rules - used, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof rules - used) fail("too many endpoints");
    used += length;
}

/* Parses a decimal number from 1 to `highest`. */
static long number(const char *text, long highest, const char *argument) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || value < 1 || value > highest)
        fail("`%s` is not an endpoint or a port; accepted: HOST[:PORT[:CONNECTIONS]] or PORT", argument);
    return value;
}

static struct endpoint parse(const char *argument) {
    struct endpoint endpoint = {0};
    if (strlen(argument) >= sizeof endpoint.host) fail("`%s` is too long", argument);
    strcpy(endpoint.host, argument);
    char *port = strchr(endpoint.host, ':');
    if (port == NULL) return endpoint;
    *port++ = '\0';
    char *connections = strchr(port, ':');
    if (connections != NULL) {
        *connections++ = '\0';
        endpoint.connections = number(connections, 1000000, argument);
    }
    endpoint.port = number(port, 65535, argument);
    return endpoint;
}

/* Waits for a host's address: the sidecar may still be starting. */
static void resolve(struct endpoint *endpoint) {
    const struct addrinfo wanted = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    const struct timespec pause = {.tv_nsec = PAUSE_MILLISECONDS * 1000000L};
    for (int waited = 0; waited < RESOLVE_MILLISECONDS; waited += PAUSE_MILLISECONDS) {
        struct addrinfo *found = NULL;
        if (getaddrinfo(endpoint->host, NULL, &wanted, &found) == 0) {
            const struct sockaddr_in *address = (const struct sockaddr_in *)found->ai_addr;
            inet_ntop(AF_INET, &address->sin_addr, endpoint->address, sizeof endpoint->address);
            freeaddrinfo(found);
            return;
        }
        nanosleep(&pause, NULL);
    }
    fail("no address for `%s` within %d seconds", endpoint->host, RESOLVE_MILLISECONDS / 1000);
}

/* Writes a table that lets only loopback traffic leave. */
static void write_closed(void) {
    append("table inet closed {\n  chain output {\n    type filter hook output priority filter; policy drop;\n"
           "    oif lo accept\n  }\n}\n");
}

/* Begins the table that replaces the closed one in a single step. */
static void begin_rules(void) {
    used = 0;
    append("delete table inet closed\n"
           "table inet bottle {\n  chain output {\n    type filter hook output priority filter; policy drop;\n"
           "    oif lo accept\n");
}

static void end_rules(void) {
    append("    meta l4proto tcp reject with tcp reset\n    reject\n  }\n}\n");
}

/*
 * Writes the rules of the outlet. An outgoing connection of pipelock never has OWN as its own port, which is below the range
 * of ports that the kernel gives out, so what comes from there is an answer. The engine's resolver asks in this namespace for
 * names outside the bottle, by TCP where an answer is long; pipelock's user may not, because port 53 would be open to the
 * agent then. No request to pipelock makes it send UDP anywhere but to the resolver. Protocol 58 is ICMPv6, which finds
 * neighbours.
 */
static void write_outlet(char **arguments, int count) {
    char *own = strchr(arguments[0], ':');
    if (own == NULL) fail("`%s` is not a user and a port; accepted: USER:OWN", arguments[0]);
    *own++ = '\0';
    const long user = strcmp(arguments[0], "0") == 0 ? 0 : number(arguments[0], 4294967294L, arguments[0]);
    begin_rules();
    append("    meta l4proto 58 accept\n    tcp sport %ld accept\n    udp dport 53 accept\n"
           "    meta skuid != %ld tcp dport 53 accept\n", number(own, 65535, own), user);
    for (int i = 1; i < count; i++)
        append("    tcp dport %ld accept\n", number(arguments[i], 65535, arguments[i]));
    end_rules();
}

/* Writes the rules of the seal. */
static void write_rules(const struct endpoint *endpoints, int count, int limited) {
    begin_rules();
    for (int i = 0; i < count; i++)
        if (limited && endpoints[i].connections != 0)
            append("    tcp dport %ld ct state new ct count over %ld drop\n", endpoints[i].port, endpoints[i].connections);
    for (int i = 0; i < count; i++)
        for (int j = 0; endpoints[i].port != 0 && j < count; j++)
            append("    ip daddr %s tcp dport %ld accept\n", endpoints[j].address, endpoints[i].port);
    end_rules();
}

/* Returns 1 for a word of a rule that leads packets to the engine's resolver, whose address is one of the loopback interface. */
static int is_of_resolver(const char *word) {
    const char *known[] = {"tcp", "udp", "dport", "sport", "counter", "packets", "bytes", "jump", "dnat", "snat", "to", "xt",
                           "target", "\"DNAT\"", "\"SNAT\"", ":53"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(word, known[i]) == 0) return 1;
    return strncmp(word, "DOCKER_", 7) == 0 || strncmp(word, RESOLVER ":", sizeof RESOLVER) == 0
           || strspn(word, "0123456789") == strlen(word);
}

/* Returns 1 for a line of a table that is not the own one, if it lets nothing else happen. */
static int is_harmless(char *line) {
    char *rest = line + strspn(line, " \t"), *word = strsep(&rest, " ");
    if (*word == '\0' || *word == '#' || strcmp(word, "}") == 0 || strcmp(word, "chain") == 0) return 1;
    const char *second = rest == NULL ? "" : strsep(&rest, " "), *third = rest == NULL ? "" : strsep(&rest, " ");
    if (strcmp(word, "type") == 0) return strcmp(second, "nat") == 0 && strcmp(third, "hook") == 0;
    if (strcmp(word, "ip") != 0 || strcmp(third, RESOLVER) != 0) return 0;
    if (strcmp(second, "daddr") != 0 && strcmp(second, "saddr") != 0) return 0;
    while (rest != NULL)
        if (!is_of_resolver(strsep(&rest, " "))) return 0;
    return 1;
}

/* Returns 1 if every table but the own one is harmless, as nft lists them. */
static int are_others_harmless(void) {
    int ends[2], status = 1, own = 0, harmless = 1;
    if (pipe2(ends, O_CLOEXEC) != 0) return 0;
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/usr/sbin/nft", "nft", "list", "ruleset", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *listed = fdopen(ends[0], "r");
    static char line[4096];
    while (listed != NULL && fgets(line, sizeof line, listed) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "table ", 6) == 0) own = strcmp(line + 6, "inet bottle {") == 0;
        else if (!own) harmless &= is_harmless(line);
    }
    if (listed != NULL) fclose(listed);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    return harmless && listed != NULL && status == 0;
}

/* Runs nft with the rules as its standard input. */
static int set_rules(int quiet) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) fail("cannot create a pipe: %s", strerror(errno));
    const pid_t child = fork();
    if (child < 0) fail("cannot start nft: %s", strerror(errno));
    if (child == 0) {
        dup2(ends[0], STDIN_FILENO);
        if (quiet) close(STDERR_FILENO);
        execl("/usr/sbin/nft", "nft", "-f", "-", (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    const ssize_t written = write(ends[1], rules, used); /* fits into the pipe */
    close(ends[1]);
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) fail("cannot wait for nft: %s", strerror(errno));
    return written == (ssize_t)used && status == 0;
}

/* Opens a socket on which the kernel tells each change of the namespace's rules. Returns -1 if it cannot. */
static int open_changes(void) {
    const struct {
        uint16_t family, padding;
        uint32_t port, groups;
    } address = {.family = AF_NETLINK, .groups = 1 << (GROUP_NFTABLES - 1)};
    const int changes = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (changes < 0 || bind(changes, (const struct sockaddr *)&address, sizeof address) == 0) return changes;
    close(changes);
    return -1;
}

/* Rounds a length up to where the next message or attribute begins. */
static size_t padded(size_t length) { return (length + 3) & ~(size_t)3; }

enum change { NONE, OF_OTHERS, OF_OWN };

/* Returns whose rules a message is about. */
static enum change change_of(const uint8_t *message, size_t length) {
    uint16_t type;
    memcpy(&type, message + 4, sizeof type);
    if (type >> 8 != SUBSYSTEM_NFTABLES || (type & 0xff) == NEW_GENERATION) return NONE;
    for (size_t at = MESSAGE_HEADER + FAMILY_HEADER; at + ATTRIBUTE_HEADER <= length;) {
        uint16_t attribute[2]; /* its length and its type */
        memcpy(attribute, message + at, sizeof attribute);
        if (attribute[0] < ATTRIBUTE_HEADER || attribute[0] > length - at) return OF_OWN;
        if ((attribute[1] & ATTRIBUTE_TYPE) == ATTRIBUTE_TABLE) {
            const char name[] = "bottle";
            const uint8_t *told = message + at + ATTRIBUTE_HEADER;
            const int is_own = attribute[0] == ATTRIBUTE_HEADER + sizeof name && memcmp(told, name, sizeof name) == 0;
            return is_own ? OF_OWN : OF_OTHERS;
        }
        at += padded(attribute[0]);
    }
    return OF_OTHERS;
}

/* Reads what the kernel tells. Returns 1 if the rules were changed, or if something was lost. */
static int were_changed(int changes) {
    static uint8_t told[65536];
    const ssize_t count = recv(changes, told, sizeof told, MSG_TRUNC);
    if (count < 0) return errno != EINTR;
    if ((size_t)count > sizeof told) return 1;
    enum change most = NONE;
    uint32_t length;
    for (size_t at = 0; at + MESSAGE_HEADER <= (size_t)count; at += padded(length)) {
        memcpy(&length, told + at, sizeof length);
        if (length < MESSAGE_HEADER || length > (size_t)count - at) return 1;
        const enum change change = change_of(told + at, length);
        if (change > most) most = change;
    }
    return most == OF_OWN || (most == OF_OTHERS && !are_others_harmless());
}

/* Waits for a signal to stop. Closes the namespace, and fails, if somebody changes the rules. */
static void keep_rules(const sigset_t *stop) {
    struct pollfd ready[] = {
        {.fd = signalfd(-1, stop, SFD_CLOEXEC), .events = POLLIN},
        {.fd = open_changes(), .events = POLLIN},
    };
    if (ready[0].fd < 0) fail("cannot wait for signals: %s", strerror(errno));
    if (ready[1].fd < 0) fputs("seal: this kernel does not tell changes of the rules\n", stderr);
    while (poll(ready, 2, -1) < 0 || ready[0].revents == 0) {
        if (ready[1].revents == 0 || !were_changed(ready[1].fd)) continue;
        used = 0;
        write_closed();
        fail(set_rules(0) ? "somebody changed the rules; the namespace is closed" : "somebody changed the rules");
    }
}

int main(int count, char **arguments) {
    if (count == 2 && strcmp(arguments[1], "check") == 0) {
        execl("/usr/sbin/nft", "nft", "list", "table", "inet", "bottle", (char *)NULL);
        fail("cannot start nft: %s", strerror(errno));
    }
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    signal(SIGPIPE, SIG_IGN);

    if (count == 2 && strcmp(arguments[1], "store") == 0) {
        int received;
        sigwait(&stop, &received);
        return 0;
    }
    write_closed();
    if (!set_rules(0)) fail("cannot close the namespace");

    if (count > 2 && strcmp(arguments[1], "outlet") == 0) {
        write_outlet(arguments + 2, count - 2);
        if (!set_rules(0)) fail("cannot open the ports");
        keep_rules(&stop);
        return 0;
    }
    static struct endpoint endpoints[MAX_ENDPOINTS];
    count--;
    if (count > MAX_ENDPOINTS) fail("%d endpoints are more than %d", count, MAX_ENDPOINTS);
    for (int i = 0; i < count; i++) endpoints[i] = parse(arguments[i + 1]);
    for (int i = 0; i < count; i++) resolve(&endpoints[i]);
    write_rules(endpoints, count, 1);
    if (!set_rules(1)) {
        write_rules(endpoints, count, 0);
        if (!set_rules(0)) fail("cannot open the endpoints");
        fputs("seal: this kernel cannot count connections (nft_connlimit); their number is not limited\n", stderr);
    }
    keep_rules(&stop);
    return 0;
}
