/* The floor of an extraction: the system calls that it cannot do without, from a plain archive in memory.
 *
 *   gcc -O2 -o /tmp/floor scripts/bench_floor.c && /tmp/floor [--stubs] ARCHIVE.tar EMPTY_DIRECTORY
 *
 * With --stubs that of a skeleton: files are sparse, with the two attributes that lead overlayfs to their bytes,
 * and owners and the times of directories are set, too.
 *
 * Prints seconds, by the clock and of the processor.
 *
 * Checks nothing, hashes nothing, decompresses nothing, and follows links: for trusted archives on a scratch
 * filesystem only. Reads ustar, PAX paths and GNU long names. docs/performance.md compares with it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static char name[65536], target[65536];
static int named, linked, stubs;

/* Directories whose times are set at the end: what is made in them changes those. */
static struct late {
    char *name;
    struct timespec times[2];
} *late;
static size_t lates;

static unsigned long octal(const char *field, int width) {
    unsigned long value = 0;
    for (; width-- && (*field == ' ' || (*field >= '0' && *field <= '7')); field++)
        if (*field != ' ')
            value = value * 8 + (*field - '0');
    return value;
}

static void put(char *to, const char *text, size_t size) {
    memcpy(to, text, size);
    to[size] = 0;
}

static void records(const char *at, const char *end) {
    while (at < end) {
        char *key;
        size_t length = strtoul(at, &key, 10);
        key++;
        const char *equals = memchr(key, '=', at + length - key);
        if (!length || !equals)
            return;
        size_t size = at + length - 1 - (equals + 1);
        if (!strncmp(key, "path=", 5))
            put(name, equals + 1, size), named = 1;
        else if (!strncmp(key, "linkpath=", 9))
            put(target, equals + 1, size), linked = 1;
        at += length;
    }
}

/* Makes what has no content; returns a descriptor for what has. */
static int create(const char *header, mode_t mode) {
    dev_t device = makedev(octal(header + 329, 8), octal(header + 337, 8));
    switch (header[156]) {
    case '1':
        return link(target, name);
    case '2':
        return symlink(target, name);
    case '3':
        return mknod(name, mode | S_IFCHR, device);
    case '4':
        return mknod(name, mode | S_IFBLK, device);
    case '5':
        return mkdir(name, mode) && errno != EEXIST ? -1 : 0;
    case '6':
        return mknod(name, mode | S_IFIFO, 0);
    }
    return open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
}

static void make_parents(void) {
    for (char *slash = name; (slash = strchr(slash + 1, '/')); *slash = '/') {
        *slash = 0;
        mkdir(name, 0755);
    }
}

/* Gives a new file what a stub has; the redirect is as long as those of layerfs. */
static void stub(int fd, size_t size) {
    static unsigned number;
    char redirect[32];
    sprintf(redirect, "/%02x/%020u", number % 256, number);
    number++;
    if (ftruncate(fd, size) || fsetxattr(fd, "trusted.overlay.metacopy", "", 0, 0) ||
        fsetxattr(fd, "trusted.overlay.redirect", redirect, strlen(redirect), 0)) {
        perror(name);
        exit(1);
    }
}

/* Sets an owner other than who runs this has, and with it the bits that a new owner takes away. */
static void own(int fd, const char *header, mode_t mode) {
    uid_t uid = octal(header + 108, 8);
    gid_t gid = octal(header + 116, 8);
    if (!uid && !gid && !(mode & 07000))
        return;
    if (fd ? fchown(fd, uid, gid) : lchown(name, uid, gid))
        perror(name);
    if (mode & 07000 && (fd ? fchmod(fd, mode) : chmod(name, mode)))
        perror(name);
}

static void set_later(const struct timespec *times) {
    if (lates % 1024 == 0)
        late = realloc(late, (lates + 1024) * sizeof *late);
    late[lates].name = strdup(name);
    memcpy(late[lates++].times, times, sizeof late->times);
}

static void set_times_of_directories(void) {
    while (lates--)
        utimensat(AT_FDCWD, late[lates].name, late[lates].times, 0);
}

static void make(const char *header, const char *content, size_t size) {
    struct timespec times[2] = {{octal(header + 136, 12), 0}, {octal(header + 136, 12), 0}};
    mode_t mode = octal(header + 100, 8) & 07777;
    int fd = create(header, mode);
    if (fd < 0 && errno == ENOENT) {
        make_parents();
        fd = create(header, mode);
    }
    if (fd < 0) {
        perror(name);
        exit(1);
    }
    if (stubs && header[156] != '1')
        own(fd, header, mode);
    if (fd && stubs) {
        if (size)
            stub(fd, size);
        futimens(fd, times);
        close(fd);
    } else if (fd) {
        for (ssize_t done; size && (done = write(fd, content, size)) > 0; size -= done)
            content += done;
        futimens(fd, times);
        close(fd);
    } else if (stubs && header[156] == '5')
        set_later(times);
    else if (header[156] != '1' && header[156] != '5')
        utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW);
}

int main(int count, char **arguments) {
    struct stat status;
    struct timespec start, end;
    stubs = count == 4 && !strcmp(arguments[1], "--stubs");
    arguments += stubs;
    int fd = count - stubs == 3 ? open(arguments[1], O_RDONLY) : -1;
    if (fd < 0 || fstat(fd, &status) || chdir(arguments[2])) {
        fprintf(stderr, "usage: floor [--stubs] ARCHIVE.tar EMPTY_DIRECTORY\n");
        return 2;
    }
    const char *at = mmap(0, status.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    const char *last = at + status.st_size;
    umask(0);
    clock_t spent = clock();
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (; at + 512 <= last && *at; ) {
        const char *header = at, *content = at + 512;
        char kind = header[156];
        size_t size = kind >= '1' && kind <= '6' ? 0 : octal(header + 124, 12);
        at = content + (size + 511) / 512 * 512;
        if (kind == 'x')
            records(content, content + size);
        else if (kind == 'L')
            put(name, content, size), named = 1;
        else if (kind == 'K')
            put(target, content, size), linked = 1;
        else if (kind != 'g') {
            if (!named) {
                size_t prefix = strnlen(header + 345, 155);
                if (prefix && !memcmp(header + 257, "ustar", 6))
                    sprintf(name, "%.155s/%.100s", header + 345, header);
                else
                    put(name, header, strnlen(header, 100));
            }
            if (!linked)
                put(target, header + 157, strnlen(header + 157, 100));
            make(header, content, size);
            named = linked = 0;
        }
    }
    set_times_of_directories();
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.3f %.3f\n", end.tv_sec - start.tv_sec + (end.tv_nsec - start.tv_nsec) / 1e9,
           (double)(clock() - spent) / CLOCKS_PER_SEC);
    return 0;
}
