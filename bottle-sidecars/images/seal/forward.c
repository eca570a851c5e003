/*
 * forward: carries TCP connections of the host to one port of the namespace's loopback, over its standard input and output.
 *
 *   forward PORT
 *
 * It listens nowhere: the other side opens each connection. It ends with its standard input. `bottle-forward` is the other
 * side, and describes the frames.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 100, WINDOW = 65536, PAYLOAD = 16384, HEADER = 8 };
enum kind { OPEN, DATA, CREDIT, END, RESET };

struct connection {
    uint32_t id;
    int socket;      /* -1 if this place is free */
    int is_ended;    /* the host sends nothing more */
    int is_shut;     /* so the agent was told */
    int is_read;     /* the agent sends nothing more, and so the host was told */
    uint32_t credit; /* bytes that the host still takes */
    uint32_t used;   /* bytes of `waiting` */
    uint8_t waiting[WINDOW]; /* for the agent */
};

static struct connection connections[CONNECTIONS];
static uint16_t port;

static void fail(const char *reason) {
    fprintf(stderr, "forward: %s\n", reason);
    exit(1);
}

static void write_all(const uint8_t *bytes, size_t count) {
    while (count > 0) {
        const ssize_t written = write(STDOUT_FILENO, bytes, count);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) exit(0); /* nobody listens any more */
        bytes += written;
        count -= written;
    }
}

/* Sends a frame whose payload, if it has one, follows the header in `frame`. */
static void send_frame(uint8_t *frame, uint32_t id, enum kind kind, uint32_t length) {
    const uint32_t header[2] = {htole32(id), htole32((uint32_t)kind << 24 | length)};
    memcpy(frame, header, HEADER);
    write_all(frame, HEADER + (kind == DATA ? length : 0));
}

static void tell(uint32_t id, enum kind kind, uint32_t length) {
    uint8_t frame[HEADER];
    send_frame(frame, id, kind, length);
}

static void release(struct connection *it) {
    close(it->socket);
    it->socket = -1;
}

static void reset(struct connection *it) {
    tell(it->id, RESET, 0);
    release(it);
}

static struct connection *find(uint32_t id) {
    for (int i = 0; i < CONNECTIONS; i++)
        if (connections[i].socket >= 0 && connections[i].id == id) return &connections[i];
    return NULL;
}

/* Returns a free place. If there is none, the oldest connection that the host knows as ended makes room: its agent does not
 * read what is left for it. */
static struct connection *free_place(void) {
    struct connection *oldest = NULL;
    for (struct connection *it = connections; it < connections + CONNECTIONS; it++) {
        if (it->socket < 0) return it;
        if (it->is_ended && it->is_read && (oldest == NULL || (int32_t)(it->id - oldest->id) < 0)) oldest = it;
    }
    if (oldest != NULL) release(oldest);
    return oldest;
}

static void open_connection(uint32_t id) {
    struct connection *it = free_place();
    if (it == NULL) {
        tell(id, RESET, 0);
        return;
    }
    memset(it, 0, offsetof(struct connection, waiting));
    it->id = id;
    it->credit = WINDOW;
    it->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (it->socket < 0) {
        tell(id, RESET, 0);
        return;
    }
    const int on = 1;
    setsockopt(it->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const struct sockaddr_in agent = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(it->socket, (const struct sockaddr *)&agent, sizeof agent) != 0 && errno != EINPROGRESS) reset(it);
}

/* Ends what has ended in both directions. */
static void settle(struct connection *it) {
    if (it->is_ended && it->used == 0 && !it->is_shut) {
        shutdown(it->socket, SHUT_WR);
        it->is_shut = 1;
    }
    if (it->is_shut && it->is_read) release(it);
}

static void receive(struct connection *it) {
    static uint8_t frame[HEADER + PAYLOAD];
    const ssize_t count = recv(it->socket, frame + HEADER, it->credit < PAYLOAD ? it->credit : PAYLOAD, 0);
    if (count > 0) {
        it->credit -= count;
        send_frame(frame, it->id, DATA, count);
    } else if (count == 0) {
        it->is_read = 1;
        tell(it->id, END, 0);
        settle(it);
    } else if (errno != EAGAIN && errno != EINTR) {
        reset(it);
    }
}

static void deliver(struct connection *it) {
    const ssize_t count = send(it->socket, it->waiting, it->used, 0);
    if (count > 0) {
        it->used -= count;
        memmove(it->waiting, it->waiting + count, it->used);
        tell(it->id, CREDIT, count);
        settle(it);
    } else if (count < 0 && errno != EAGAIN && errno != EINTR) {
        reset(it);
    }
}

/* Handles a frame of the host. A connection that ended meanwhile is not an error. */
static void handle(uint32_t id, enum kind kind, uint32_t length, const uint8_t *payload) {
    if (kind == OPEN) {
        open_connection(id);
        return;
    }
    struct connection *it = find(id);
    if (it == NULL) return;
    if (kind == DATA) {
        if (it->is_ended || length > WINDOW - it->used) fail("more than the window");
        memcpy(it->waiting + it->used, payload, length);
        it->used += length;
    } else if (kind == CREDIT) {
        if (length > WINDOW - it->credit) fail("more than the window");
        it->credit += length;
    } else if (kind == END) {
        it->is_ended = 1;
        settle(it);
    } else if (kind == RESET) {
        release(it);
    } else {
        fail("unknown frame");
    }
}

/* Reads what the host has sent, and handles each whole frame. */
static void read_frames(void) {
    static uint8_t input[2 * (HEADER + PAYLOAD)];
    static size_t filled;
    const ssize_t count = read(STDIN_FILENO, input + filled, sizeof input - filled);
    if (count < 0 && errno == EINTR) return;
    if (count <= 0) exit(0);
    filled += count;
    size_t at = 0;
    while (filled - at >= HEADER) {
        uint32_t header[2];
        memcpy(header, input + at, HEADER);
        const uint32_t length = le32toh(header[1]) & 0xffffff;
        const enum kind kind = le32toh(header[1]) >> 24;
        const size_t payload = kind == DATA ? length : 0;
        if (payload > PAYLOAD) fail("frame too long");
        if (filled - at < HEADER + payload) break;
        handle(le32toh(header[0]), kind, length, input + at + HEADER);
        at += HEADER + payload;
    }
    filled -= at;
    memmove(input, input + at, filled);
}

int main(int count, char **arguments) {
    const long number = count == 2 ? strtol(arguments[1], NULL, 10) : 0;
    if (number < 1 || number > 65535) fail("accepted: a port from 1 to 65535");
    port = number;
    signal(SIGPIPE, SIG_IGN);
    /* If memory is short, this process ends before the one that holds the namespace. */
    const int score = open("/proc/self/oom_score_adj", O_WRONLY);
    if (score >= 0) {
        if (write(score, "1000", 4) != 4) fputs("forward: cannot set oom_score_adj\n", stderr);
        close(score);
    }
    for (int i = 0; i < CONNECTIONS; i++) connections[i].socket = -1;
    tell(0, OPEN, 0); /* it runs */
    for (;;) {
        struct pollfd polled[1 + CONNECTIONS] = {{.fd = STDIN_FILENO, .events = POLLIN}};
        for (int i = 0; i < CONNECTIONS; i++) {
            const struct connection *it = &connections[i];
            const short events = (it->used > 0 ? POLLOUT : 0) | (it->credit > 0 && !it->is_read ? POLLIN : 0);
            /* A closed socket is always ready, so it is only watched if something can be done with it. */
            polled[1 + i] = (struct pollfd){.fd = events != 0 ? it->socket : -1, .events = events};
        }
        if (poll(polled, 1 + CONNECTIONS, -1) < 0) {
            if (errno == EINTR) continue;
            fail("poll");
        }
        for (int i = 0; i < CONNECTIONS; i++) {
            struct connection *it = &connections[i];
            const short ready = polled[1 + i].revents;
            if (ready == 0) continue;
            if ((polled[1 + i].events & POLLOUT) && (ready & ~POLLIN)) deliver(it);
            if (it->socket >= 0 && (polled[1 + i].events & POLLIN) && (ready & ~POLLOUT)) receive(it);
        }
        if (polled[0].revents != 0) read_frames();
    }
}
