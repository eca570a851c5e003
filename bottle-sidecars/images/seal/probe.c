/*
 * probe: attacks the protections of the container that it runs in, as the user that it runs as.
 *
 *   probe CHECK...
 *
 * Prints one line for each CHECK, in their order: `held`, `failed` or `unknown`, and what happened.
 *
 * Another process of its user cannot forge the results: it can neither trace this one nor open its files. Where the file of the
 * program cannot be read by its user, that is so from the first instruction on. In gVisor, it can open them.
 *
 *   tcp:HOST:PORT                  no connection is made, and no packet leaves
 *   udp:HOST:PORT                  no datagram leaves, from a socket bound to an interface neither
 *   scan:HOST:PORT,PORT...         no TCP port accepts a connection, except these
 *   open:HOST:PORT                 a connection is made
 *   names:NAME                     the resolver asks nobody about NAME
 *   proxy:HOST:PORT:TARGET         the proxy refuses a request for http://TARGET/ with status 403
 *   ipv6                           no datagram leaves over IPv6
 *   raw                            no raw and no packet socket can be created
 *   process                        no capability, no new privileges
 *   seccomp                        a filter is loaded, and refuses new user namespaces
 *   sockets                        no socket of a container engine is there
 *   blocked:HOST:PORT              no connection is made. On a cluster, a packet that nobody refuses is dropped elsewhere
 *   silent:HOST:PORT:NAME          the name server at HOST does not answer a question about NAME
 *   program                        the user cannot replace this program
 *   limits:MEMORY:PIDS:CPU         the control groups allow no more bytes, processes and thousandths of a processor. 0: any
 *   neighbours                     every process that can be looked at is in this network namespace
 *
 *   probe after CHECK...           waits for a line on standard input first, with a word that then begins each result. After
 *                                  the results, it prints the mounts, and what can be read of every process
 *   probe rules                    prints the interfaces of the network namespace that are up, and its rules, with nft.
 *                                  `probe after rules` waits for a line on standard input first
 *
 *   probe wait                     waits for a signal to stop, in a container in which the program is started again
 *   probe listen::PORT             accepts connections, and closes them, until a signal to stop
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REFUSED_WITHIN = 250, ANSWERED_WITHIN = 5000 }; /* milliseconds */

/* What each result begins with. */
static char word_of_caller[64];

static int outcome(const char *word, const char *format, va_list arguments) {
    if (*word_of_caller != '\0') printf("%s ", word_of_caller);
    printf("%s ", word);
    vprintf(format, arguments);
    putchar('\n');
    return 0;
}

static int held(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    outcome("held", format, arguments);
    va_end(arguments);
    return 1;
}

static int unknown(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    outcome("unknown", format, arguments);
    va_end(arguments);
    return 1;
}

static int failed(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    outcome("failed", format, arguments);
    va_end(arguments);
    return 0;
}

/*
 * Returns true for an error of a process that may open no more files or ports, or has no memory. It says nothing of the network:
 * the agent can limit this process, because it has the same user, and can take every port.
 */
static int is_shortage(int error) {
    const int shortages[] = {EMFILE, ENFILE, ENOMEM, ENOBUFS, EAGAIN, EADDRNOTAVAIL, EADDRINUSE};
    for (size_t i = 0; i < sizeof shortages / sizeof *shortages; i++)
        if (error == shortages[i]) return 1;
    return 0;
}

static int not_tried(int error) { return failed("it could not be tried: %s", strerror(error)); }

/* Resolves an IPv4 host. Returns false if it has no address. Each name is asked for once: without a network, that takes seconds. */
static int address_of(const char *host, long port, struct sockaddr_in *address) {
    static struct { char host[256]; int found; struct sockaddr_in address; } known[32];
    static int count;
    int at = 0;
    while (at < count && strcmp(known[at].host, host) != 0) at++;
    if (at == count) {
        if (count == sizeof known / sizeof *known || strlen(host) >= sizeof known[0].host) return 0;
        const struct addrinfo wanted = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
        struct addrinfo *found = NULL;
        strcpy(known[count].host, host);
        known[count].found = getaddrinfo(host, NULL, &wanted, &found) == 0;
        if (known[count].found) known[count].address = *(const struct sockaddr_in *)found->ai_addr;
        if (found != NULL) freeaddrinfo(found);
        count++;
    }
    *address = known[at].address;
    address->sin_port = htons(port);
    return known[at].found;
}

/* Connects. Returns the socket, or -1 with errno; ETIMEDOUT if nothing answered in time. */
static int connected(const struct sockaddr_in *address, int milliseconds) {
    const int made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0) return -1;
    int error = connect(made, (const struct sockaddr *)address, sizeof *address) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
        struct pollfd wait = {.fd = made, .events = POLLOUT};
        socklen_t size = sizeof error;
        error = ETIMEDOUT;
        if (poll(&wait, 1, milliseconds) == 1) getsockopt(made, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error == 0) return made;
    close(made);
    errno = error;
    return -1;
}

static int check_tcp(const char *host, long port) {
    struct sockaddr_in address;
    if (!address_of(host, port, &address)) return failed("`%s` has no address", host);
    const int made = connected(&address, REFUSED_WITHIN);
    if (made >= 0) {
        close(made);
        return failed("connected to %s:%ld", host, port);
    }
    if (errno == ETIMEDOUT) return failed("nothing refused a packet to %s:%ld within %d ms", host, port, REFUSED_WITHIN);
    if (is_shortage(errno)) return not_tried(errno);
    return held("%s:%ld: %s", host, port, strerror(errno));
}

/* The connections of all `blocked` checks, which are attempted at the same time: a dropped packet takes the whole time. */
enum { MAX_ATTEMPTS = 128 };
static struct attempt { int made, error; } attempts[MAX_ATTEMPTS];

/* Attempts a connection. Returns its number, or -1 if the host has no address or there are too many. */
static int attempt(const char *host, long port) {
    static int count;
    struct sockaddr_in address;
    if (count == MAX_ATTEMPTS || !address_of(host, port, &address)) return -1;
    struct attempt *own = &attempts[count];
    own->made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    own->error = own->made < 0 || connect(own->made, (const struct sockaddr *)&address, sizeof address) != 0 ? errno : 0;
    return count++;
}

static int check_blocked(int number, const char *host, long port) {
    if (number < 0) return failed("`%s` has no address, or there are too many checks", host);
    int error = attempts[number].error;
    if (error == EINPROGRESS) {
        struct pollfd ended = {.fd = attempts[number].made, .events = POLLOUT};
        socklen_t size = sizeof error;
        error = ETIMEDOUT;
        if (poll(&ended, 1, 0) == 1) getsockopt(ended.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (attempts[number].made >= 0) close(attempts[number].made);
    if (error == 0) return failed("connected to %s:%ld", host, port);
    if (is_shortage(error)) return not_tried(error);
    return held("%s:%ld: %s", host, port, strerror(error));
}

static int check_open(const char *host, long port) {
    struct sockaddr_in address;
    if (!address_of(host, port, &address)) return failed("`%s` has no address", host);
    const int made = connected(&address, ANSWERED_WITHIN);
    if (made < 0) return failed("%s:%ld: %s", host, port, strerror(errno));
    close(made);
    return held("connected to %s:%ld", host, port);
}

/* Sends a datagram, from a socket bound to the interface if there is one. Returns true if it was sent. */
static int sent(const void *address, socklen_t size, int family, const char *interface) {
    const int made = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (made < 0) return 0;
    int done = 0;
    if (interface == NULL || setsockopt(made, SOL_SOCKET, SO_BINDTODEVICE, interface, strlen(interface)) == 0)
        done = sendto(made, "probe", 5, MSG_DONTWAIT, address, size) >= 0;
    const int error = errno;
    close(made);
    errno = error;
    return done;
}

static int check_udp(const char *host, long port) {
    struct sockaddr_in address;
    if (!address_of(host, port, &address)) return failed("`%s` has no address", host);
    if (sent(&address, sizeof address, AF_INET, NULL)) return failed("sent a datagram to %s:%ld", host, port);
    const int error = errno;
    if (is_shortage(error)) return not_tried(error);
    int bound = 0;
    struct if_nameindex *interfaces = if_nameindex();
    if (interfaces == NULL) return not_tried(errno);
    for (struct if_nameindex *at = interfaces; at != NULL && at->if_name != NULL && bound < 16; at++) {
        if (strcmp(at->if_name, "lo") == 0) continue;
        if (sent(&address, sizeof address, AF_INET, at->if_name))
            return failed("sent a datagram to %s:%ld over %s", host, port, at->if_name);
        if (is_shortage(errno)) return not_tried(errno);
        bound++;
    }
    if_freenameindex(interfaces);
    return held("%s:%ld: %s, and bound to %d interfaces", host, port, strerror(error), bound);
}

static int check_ipv6(void) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(53)};
    inet_pton(AF_INET6, "2001:db8::1", &address.sin6_addr);
    if (sent(&address, sizeof address, AF_INET6, NULL)) return failed("sent a datagram over IPv6");
    const int error = errno;
    /* Without an address of its own, that is no shortage of ports. */
    if (is_shortage(error) && error != EADDRNOTAVAIL) return not_tried(error);
    inet_pton(AF_INET6, "ff02::1", &address.sin6_addr);
    struct if_nameindex *interfaces = if_nameindex();
    if (interfaces == NULL) return not_tried(errno);
    for (struct if_nameindex *at = interfaces; at->if_name != NULL; at++) {
        if (strcmp(at->if_name, "lo") == 0) continue;
        address.sin6_scope_id = at->if_index;
        if (sent(&address, sizeof address, AF_INET6, NULL)) return failed("sent a datagram over IPv6 and %s", at->if_name);
        if (is_shortage(errno) && errno != EADDRNOTAVAIL) return not_tried(errno);
    }
    if_freenameindex(interfaces);
    return held("%s", strerror(error));
}

static int is_in(long port, const char *list) {
    for (const char *at = list; at != NULL && *at != '\0'; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (atol(at) == port) return 1;
    return 0;
}

static int check_scan(const char *host, const char *except) {
    struct sockaddr_in address;
    if (!address_of(host, 0, &address)) return failed("`%s` has no address", host);
    for (long port = 1; port <= 65535; port++) {
        if (is_in(port, except)) continue;
        address.sin_port = htons(port);
        const int made = connected(&address, REFUSED_WITHIN);
        if (made >= 0) {
            close(made);
            return failed("connected to %s:%ld", host, port);
        }
        if (errno == ETIMEDOUT) return failed("nothing refused a packet to %s:%ld within %d ms", host, port, REFUSED_WITHIN);
        if (is_shortage(errno)) return not_tried(errno);
    }
    return held("%s refuses every TCP port but %s", host, *except == '\0' ? "none" : except);
}

/* Reads the first name server's address. Returns 0 if there is none, and -1 with errno if the file cannot be read. */
static int name_server(struct sockaddr_in *address) {
    FILE *file = fopen("/etc/resolv.conf", "re");
    char line[256], host[64];
    int found = 0;
    if (file == NULL && errno != ENOENT) return -1;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL)
        found = sscanf(line, "nameserver %63s", host) == 1 && inet_pton(AF_INET, host, &address->sin_addr) == 1;
    if (file != NULL) fclose(file);
    address->sin_family = AF_INET;
    address->sin_port = htons(53);
    return found;
}

/* Writes a query for the address of a name. Returns its length, or 0 if it is no name. */
static size_t query_for(const char *name, unsigned char query[300]) {
    static const unsigned char header[12] = {0x62, 0x74, 1, 0, 0, 1};
    memset(query, 0, 300);
    memcpy(query, header, sizeof header);
    size_t used = sizeof header;
    for (const char *label = name; *label != '\0';) {
        const size_t length = strcspn(label, ".");
        if (length == 0 || length > 63 || used + length + 6 > 300) return 0;
        query[used++] = length;
        memcpy(query + used, label, length);
        used += length;
        label += length + (label[length] == '.');
    }
    query[used + 2] = 1; /* the root label, then type A */
    query[used + 4] = 1; /* class IN */
    return used + 5;
}

/* Asks a name server. Returns the response code, -1 if it does not answer, -2 with errno if it cannot be asked. */
static int answer_of(const struct sockaddr_in *server, const unsigned char *query, size_t used, int milliseconds) {
    const int made = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct pollfd wait = {.fd = made, .events = POLLIN};
    unsigned char answer[1500];
    /* A connected socket learns at once that nobody listens. */
    if (made < 0 || connect(made, (const struct sockaddr *)server, sizeof *server) != 0 || send(made, query, used, 0) < 0) {
        const int error = errno;
        if (made >= 0) close(made);
        errno = error;
        return -2;
    }
    const ssize_t length = poll(&wait, 1, milliseconds) == 1 ? recv(made, answer, sizeof answer, 0) : -1;
    close(made);
    return length < 12 ? -1 : answer[3] & 15;
}

static int check_names(const char *name) {
    struct sockaddr_in server = {0};
    unsigned char query[300];
    const size_t used = query_for(name, query);
    if (used == 0) return failed("`%s` is no name", name);
    const int known = name_server(&server);
    if (known < 0) return not_tried(errno);
    if (known == 0) return held("there is no name server");
    const int code = answer_of(&server, query, used, ANSWERED_WITHIN);
    if (code == -2 && is_shortage(errno)) return not_tried(errno);
    if (code == -2) return held("the resolver is not reached: %s", strerror(errno));
    if (code == -1) return held("the resolver does not answer");
    if (code == 2 || code == 5) return held("the resolver answers with code %d", code); /* 2: it could ask nobody. 5: refused. */
    return failed("the resolver answers with code %d, so it asked another server", code);
}

static int check_silent(const char *host, long port, const char *name) {
    struct sockaddr_in server;
    unsigned char query[300];
    const size_t used = query_for(name, query);
    if (used == 0) return failed("`%s` is no name", name);
    if (!address_of(host, port, &server)) return failed("`%s` has no address", host);
    const int code = answer_of(&server, query, used, 4 * REFUSED_WITHIN);
    if (code >= 0) return failed("%s:%ld answers with code %d", host, port, code);
    if (code == -2 && is_shortage(errno)) return not_tried(errno);
    return held("%s:%ld does not answer", host, port);
}

static int check_proxy(const char *host, long port, const char *target) {
    struct sockaddr_in address;
    char request[1024], answer[256];
    if (!address_of(host, port, &address)) return failed("`%s` has no address", host);
    const int made = connected(&address, ANSWERED_WITHIN);
    if (made < 0) return failed("%s:%ld: %s", host, port, strerror(errno));
    const int length = snprintf(request, sizeof request, "GET http://%s/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
                                target, target);
    struct pollfd wait = {.fd = made, .events = POLLIN};
    ssize_t got = -1;
    int status = 0;
    if (length < (int)sizeof request && send(made, request, length, MSG_NOSIGNAL) == length && poll(&wait, 1, ANSWERED_WITHIN) == 1)
        got = recv(made, answer, sizeof answer - 1, 0);
    close(made);
    answer[got > 0 ? got : 0] = '\0';
    if (sscanf(answer, "HTTP/1.%*d %d", &status) != 1) return failed("%s:%ld does not answer", host, port);
    if (status != 403) return failed("%s:%ld answers with status %d to a request for a host that is not allowed", host, port, status);
    return held("%s:%ld answers with status 403", host, port);
}

static int check_raw(void) {
    const int raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    if (raw >= 0) return failed("created a raw socket");
    const int error = errno;
    const int packet = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (packet >= 0) return failed("created a packet socket");
    if (is_shortage(error) || is_shortage(errno)) return not_tried(is_shortage(error) ? error : errno);
    return held("%s, %s", strerror(error), strerror(errno));
}

/* Reads a line of this process's status. Returns 0 if there is none of this name, and -1 with errno if it cannot be read. */
static int status_of(const char *name, char *value, size_t size) {
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    int found = 0;
    if (file == NULL) return -1;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        const size_t length = strlen(name);
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            snprintf(value, size, "%s", line + length + 1 + strspn(line + length + 1, " \t"));
            value[strcspn(value, "\n")] = '\0';
            found = 1;
        }
    }
    fclose(file);
    return found;
}

static int check_process(void) {
    const char *sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
    char value[256];
    if (getuid() == 0 || geteuid() == 0) return failed("the user is root");
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const int found = status_of(sets[i], value, sizeof value);
        if (found < 0) return not_tried(errno);
        if (found == 0) continue; /* gVisor has no CapAmb */
        if (strspn(value, "0") != strlen(value)) return failed("%s is %s", sets[i], value);
    }
    if (status_of("CapEff", value, sizeof value) != 1) return failed("the capabilities cannot be read");
    /* gVisor does not show it, and sets it for every process that has it in the container's configuration. */
    const int shown = status_of("NoNewPrivs", value, sizeof value);
    if (shown < 0) return not_tried(errno);
    if (shown && strcmp(value, "1") != 0) return failed("NoNewPrivs is %s", value);
    return held("user %d, no capability", (int)getuid());
}

static int check_seccomp(void) {
    char value[256];
    if (status_of("Seccomp", value, sizeof value) != 1) return failed("the filter's state cannot be read");
    if (strcmp(value, "2") != 0) return failed("Seccomp is %s", value);
    const pid_t child = fork();
    if (child == 0) _exit(unshare(CLONE_NEWUSER) == 0);
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return failed("cannot start a process: %s", strerror(errno));
    if (status != 0) return failed("a new user namespace was created");
    return held("filter loaded, no user namespace");
}

static int check_sockets(void) {
    const char *paths[] = {"/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"};
    struct stat found;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (stat(paths[i], &found) == 0) return failed("%s is there", paths[i]);
    return held("none of %d paths", (int)(sizeof paths / sizeof *paths));
}

static int check_program(void) {
    const char *paths[] = {"/", "/.bottle", "/.bottle/probe"};
    struct stat found;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (stat(paths[i], &found) != 0 || found.st_uid == getuid() || access(paths[i], W_OK) == 0)
            return failed("the user can change %s", paths[i]);
    return held("root's alone");
}

/*
 * Reads the numbers of a file of the own control group: of version 1, else of version 2. `max` and negative numbers are the
 * largest one. Returns how many were read: 0 if there is no such file, -1 with errno if it cannot be opened.
 */
static int numbers_of(const char *first, const char *second, long long numbers[2]) {
    char path[600], line[512], words[2][32];
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s", first);
    FILE *file = fopen(path, "re");
    if (file == NULL && errno != ENOENT) return -1;
    if (file == NULL) {
        FILE *groups = fopen("/proc/self/cgroup", "re");
        const char *own = "";
        if (groups == NULL) return -1;
        while (fgets(line, sizeof line, groups) != NULL)
            if (strncmp(line, "0::", 3) == 0) line[strcspn(line, "\n")] = '\0', own = line + 3;
        fclose(groups);
        snprintf(path, sizeof path, "/sys/fs/cgroup%.400s/%s", own, second);
        file = fopen(path, "re");
    }
    if (file == NULL) return errno == ENOENT ? 0 : -1;
    const int count = fscanf(file, "%31s %31s", words[0], words[1]);
    fclose(file);
    for (int i = 0; i < count; i++) {
        numbers[i] = atoll(words[i]);
        if (strcmp(words[i], "max") == 0 || numbers[i] < 0) numbers[i] = LLONG_MAX;
    }
    return count < 0 ? 0 : count;
}

static int check_limits(long long memory, long long processes, long long cpu) {
    long long bytes[2], pids[2], quota[2], period[2];
    int count;
    if (memory != 0) {
        if ((count = numbers_of("memory/memory.limit_in_bytes", "memory.max", bytes)) < 0) return not_tried(errno);
        if (count == 0) return unknown("no limit of memory is shown");
        if (bytes[0] > memory) return failed("%lld bytes of memory are allowed; planned: %lld", bytes[0], memory);
    }
    if (processes != 0) {
        if ((count = numbers_of("pids/pids.max", "pids.max", pids)) < 0) return not_tried(errno);
        if (count == 0) return unknown("no limit of processes is shown");
        if (pids[0] > processes) return failed("%lld processes are allowed; planned: %lld", pids[0], processes);
    }
    if (cpu != 0) {
        if ((count = numbers_of("cpu/cpu.cfs_quota_us", "cpu.max", quota)) == 2) period[0] = quota[1];
        else if (count == 1) count = numbers_of("cpu/cpu.cfs_period_us", "", period);
        if (count < 0) return not_tried(errno);
        if (count == 0) return unknown("no limit of processors is shown");
        /* The engine rounds the quota. */
        if (quota[0] / 1000 > (cpu + 1) * period[0] / 1000000)
            return failed("%lld of %lld us of a processor are allowed; planned: %lld/1000", quota[0], period[0], cpu);
    }
    return held("%lld bytes, %lld processes, %lld/1000 processors at most", memory, processes, cpu);
}

/* Calls `look` with the number of each process, until it returns 0. Returns what it returned last. */
static int each_process(int (*look)(const char *number)) {
    DIR *all = opendir("/proc");
    int goes_on = all != NULL;
    for (struct dirent *entry; goes_on && (entry = readdir(all)) != NULL;)
        if (isdigit((unsigned char)entry->d_name[0])) goes_on = look(entry->d_name);
    if (all != NULL) closedir(all);
    return goes_on;
}

/* Returns 1 unless a process is in another network namespace. Those of other users cannot be looked at. */
static int is_neighbour(const char *number) {
    char path[64], own[64], other[64];
    snprintf(path, sizeof path, "/proc/%.20s/ns/net", number);
    const ssize_t length = readlink("/proc/self/ns/net", own, sizeof own), found = readlink(path, other, sizeof other);
    return found < 0 || (length == found && memcmp(own, other, length) == 0);
}

static int check_neighbours(void) {
    if (!each_process(is_neighbour)) return failed("a process is in another network namespace");
    return held("every process that can be looked at is in this network namespace");
}

static int print_file(const char *path) {
    char bytes[4096];
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t count; file >= 0 && (count = read(file, bytes, sizeof bytes)) > 0;) fwrite(bytes, 1, count, stdout);
    if (file >= 0) close(file);
    return 1;
}

static int print_process(const char *number) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%.20s/environ", number);
    print_file(path);
    snprintf(path, sizeof path, "/proc/%.20s/cmdline", number);
    return print_file(path);
}

/* Prints what the launcher looks through. The mounts come first, because an agent chooses the text of its processes. */
static void print_report(void) {
    printf("\n%s mounts\n", word_of_caller);
    print_file("/proc/self/mountinfo");
    printf("\n%s processes\n", word_of_caller);
    for (char **variable = environ; *variable != NULL; variable++) fwrite(*variable, 1, strlen(*variable) + 1, stdout);
    each_process(print_process);
    fflush(stdout);
}

static int print_rules(void) {
    const int made = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct if_nameindex *interfaces = if_nameindex();
    if (made < 0 || interfaces == NULL) return perror("probe: cannot list the interfaces"), 1;
    for (struct if_nameindex *at = interfaces; at->if_name != NULL; at++) {
        struct ifreq asked = {0};
        snprintf(asked.ifr_name, sizeof asked.ifr_name, "%s", at->if_name);
        if (ioctl(made, SIOCGIFFLAGS, &asked) != 0 || (asked.ifr_flags & (IFF_UP | IFF_LOOPBACK)) == IFF_UP)
            printf("interface %s\n", at->if_name);
    }
    fflush(stdout);
    execl("/usr/sbin/nft", "nft", "list", "ruleset", (char *)NULL);
    perror("probe: cannot start nft");
    return 1;
}

static void stop(int received) {
    (void)received;
    _exit(0);
}

/* Accepts connections at every address until a signal to stop. */
static int listen_at(long port) {
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0
        || bind(listener, (const struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 16) != 0) {
        perror("probe: cannot listen");
        return 1;
    }
    for (;;) {
        const int made = accept(listener, NULL, NULL);
        if (made >= 0) close(made);
    }
}

int main(int count, char **arguments) {
    /* Some kernels let a user read every program that it may run. */
    prctl(PR_SET_DUMPABLE, 0);
    if (count == 2 && (strcmp(arguments[1], "wait") == 0 || strncmp(arguments[1], "listen::", 8) == 0)) {
        signal(SIGTERM, stop); /* as process 1 it has no default action */
        signal(SIGINT, stop);
        if (arguments[1][0] == 'l') return listen_at(atol(arguments[1] + 8));
        for (;;) pause();
    }
    const int after = count > 1 && strcmp(arguments[1], "after") == 0;
    if (after && fgets(word_of_caller, sizeof word_of_caller, stdin) == NULL) return 1;
    word_of_caller[strcspn(word_of_caller, "\n")] = '\0';
    if (after) count--, arguments++;
    if (count == 2 && strcmp(arguments[1], "rules") == 0) return print_rules();
    int all = 1, numbers[MAX_ATTEMPTS], attempted = 0, next = 0;
    for (int i = 1; i < count && attempted < MAX_ATTEMPTS; i++) {
        char text[512], *rest = text;
        snprintf(text, sizeof text, "%s", arguments[i]);
        if (strcmp(strsep(&rest, ":"), "blocked") != 0) continue;
        const char *host = strsep(&rest, ":"), *port = strsep(&rest, ":");
        numbers[attempted++] = host == NULL || port == NULL ? -1 : attempt(host, atol(port));
    }
    if (attempted > 0) poll(NULL, 0, REFUSED_WITHIN);
    for (int i = 1; i < count; i++) {
        char text[512], *parts[4] = {"", "", "", ""}, *rest = text;
        snprintf(text, sizeof text, "%s", arguments[i]);
        for (int part = 0; part < 4 && rest != NULL; part++) parts[part] = strsep(&rest, ":");
        const char *check = parts[0], *host = parts[1];
        const long port = atol(parts[2]);
        if (strcmp(check, "tcp") == 0) all &= check_tcp(host, port);
        else if (strcmp(check, "udp") == 0) all &= check_udp(host, port);
        else if (strcmp(check, "scan") == 0) all &= check_scan(host, parts[2]);
        else if (strcmp(check, "open") == 0) all &= check_open(host, port);
        else if (strcmp(check, "blocked") == 0) all &= check_blocked(next < attempted ? numbers[next] : -1, host, port), next++;
        else if (strcmp(check, "silent") == 0) all &= check_silent(host, port, parts[3]);
        else if (strcmp(check, "names") == 0) all &= check_names(host);
        else if (strcmp(check, "proxy") == 0) all &= check_proxy(host, port, parts[3]);
        else if (strcmp(check, "ipv6") == 0) all &= check_ipv6();
        else if (strcmp(check, "raw") == 0) all &= check_raw();
        else if (strcmp(check, "process") == 0) all &= check_process();
        else if (strcmp(check, "seccomp") == 0) all &= check_seccomp();
        else if (strcmp(check, "sockets") == 0) all &= check_sockets();
        else if (strcmp(check, "program") == 0) all &= check_program();
        else if (strcmp(check, "limits") == 0) all &= check_limits(atoll(parts[1]), atoll(parts[2]), atoll(parts[3]));
        else if (strcmp(check, "neighbours") == 0) all &= check_neighbours();
        else all &= failed("`%s` is no check", arguments[i]);
        fflush(stdout);
    }
    if (after) print_report();
    return all ? 0 : 1;
}
