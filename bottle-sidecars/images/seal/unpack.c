/*
 * unpack: writes the files of a tar stream from its standard input below a directory.
 *
 *   unpack DIRECTORY
 *
 * A file that is there is rewritten in place, because a container may mount it alone. Another one appears with its whole
 * content. Only files and directories are accepted, with names of at most 100 bytes that lead nowhere else.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 512, NAME = 100, LARGEST = 32 << 20 };

struct header {
    char name[NAME], mode[8], uid[8], gid[8], size[12], time[12], checksum[8], type, rest[355];
};

static void fail(const char *name, const char *reason) {
    fprintf(stderr, "unpack: `%s`: %s\n", name, reason);
    exit(1);
}

static void read_all(const char *name, void *into, size_t count) {
    for (uint8_t *at = into; count > 0;) {
        const ssize_t got = read(STDIN_FILENO, at, count);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) fail(name, "the stream ends in it");
        at += got;
        count -= got;
    }
}

static void write_all(const char *name, int file, const uint8_t *bytes, size_t count) {
    while (count > 0) {
        const ssize_t written = write(file, bytes, count);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) fail(name, strerror(errno));
        bytes += written;
        count -= written;
    }
}

static size_t octal(const char *name, const char *field, size_t length) {
    char text[16] = {0};
    memcpy(text, field, length);
    char *end;
    const unsigned long value = strtoul(text, &end, 8);
    if (end == text || (*end != '\0' && *end != ' ')) fail(name, "a number of its header is not octal");
    return value;
}

/* Refuses a name that is absolute or has a component `..`. */
static void check(const char *name) {
    if (*name == '/' || *name == '\0') fail(name, "accepted: a relative name");
    for (const char *part = name; part != NULL; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0')) fail(name, "it leads outside");
    }
}

static void make_directory(const char *name, mode_t mode) {
    if (mkdir(name, mode) != 0 && errno != EEXIST) fail(name, strerror(errno));
}

static void make_parents(char *name) {
    for (char *at = name; (at = strchr(at, '/')) != NULL; at++) {
        *at = '\0';
        make_directory(name, 0700);
        *at = '/';
    }
}

static void write_file(const char *name, mode_t mode, const uint8_t *content, size_t size) {
    int file = open(name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (file >= 0) {
        write_all(name, file, content, size);
        if (ftruncate(file, size) != 0) fail(name, strerror(errno));
    } else {
        char fresh[NAME + 8];
        snprintf(fresh, sizeof fresh, "%s.new", name);
        unlink(fresh);
        file = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (file < 0) fail(name, strerror(errno));
        write_all(name, file, content, size);
        if (fchmod(file, mode) != 0 || rename(fresh, name) != 0) fail(name, strerror(errno));
    }
    close(file);
}

int main(int count, char **arguments) {
    if (count != 2 || chdir(arguments[1]) != 0) fail(count == 2 ? arguments[1] : "", "accepted: one directory");
    umask(0);
    for (;;) {
        struct header header;
        read_all("header", &header, sizeof header);
        if (header.name[0] == '\0') return 0; /* the stream ends with empty blocks */
        char name[NAME + 1] = {0};
        memcpy(name, header.name, NAME);
        size_t length = strlen(name);
        while (length > 1 && name[length - 1] == '/') name[--length] = '\0';
        check(name);
        const size_t size = octal(name, header.size, sizeof header.size);
        const mode_t mode = octal(name, header.mode, sizeof header.mode) & 0777;
        make_parents(name);
        if (header.type == '5') {
            make_directory(name, mode);
        } else if (header.type == '0' || header.type == '\0') {
            if (size > LARGEST) fail(name, "it has more than 32 MiB");
            const size_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
            uint8_t *content = malloc(padded + 1);
            if (content == NULL) fail(name, "no memory is left");
            read_all(name, content, padded);
            write_file(name, mode, content, size);
            free(content);
        } else {
            fail(name, "accepted: a file or a directory, with a name of at most 100 bytes");
        }
    }
}
