/*
 * The client of `scripts/bench mount`: as little as possible between the clock and the kernel.
 *
 *   bench_client OPERATION DIRECTORY CLIENTS < paths
 *
 * OPERATION is stat, read (open, read to the end, close), find (list every directory) or cat (read in pieces of
 * 1 MiB). The paths are relative to DIRECTORY, a line each, and are read before the clock starts. CLIENTS
 * processes run at once, each over all paths, each from another place in the list. Prints the number of
 * operations (bytes for cat) of all clients and the seconds from the first to the last of them.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1 << 20)
#define SMALL (1 << 16)

static char buffer[PIECE];

static void fail(const char *what)
{
	fprintf(stderr, "bench_client: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static long do_stat(const char *path)
{
	struct stat found;
	if (lstat(path, &found))
		fail(path);
	return 1;
}

static long read_all(const char *path, size_t piece)
{
	long total = 0;
	ssize_t got;
	int fd = open(path, O_RDONLY | O_NOFOLLOW);
	if (fd < 0)
		fail(path);
	while ((got = read(fd, buffer, piece)) > 0)
		total += got;
	if (got < 0)
		fail(path);
	close(fd);
	return total;
}

static long do_read(const char *path)
{
	read_all(path, SMALL);
	return 1;
}

static long do_cat(const char *path)
{
	return read_all(path, PIECE);
}

static long find_in(int parent, const char *name)
{
	long count = 0;
	struct dirent *entry;
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory)
		fail(name);
	while ((entry = readdir(directory))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		count++;
		if (entry->d_type == DT_DIR)
			count += find_in(fd, entry->d_name);
	}
	closedir(directory);
	return count;
}

static long do_find(const char *path)
{
	return find_in(AT_FDCWD, path);
}

static char **read_paths(long *count)
{
	size_t room = 0;
	char *line = NULL, **paths = NULL;
	ssize_t length;
	for (*count = 0; (length = getline(&line, &room, stdin)) > 0; (*count)++) {
		if (line[length - 1] == '\n')
			line[length - 1] = 0;
		paths = realloc(paths, (*count + 1) * sizeof *paths);
		if (!paths || !(paths[*count] = strdup(line)))
			fail("memory");
	}
	return paths;
}

int main(int argc, char **argv)
{
	static const struct { const char *name; long (*run)(const char *); } operations[] = {
		{"stat", do_stat}, {"read", do_read}, {"find", do_find}, {"cat", do_cat},
	};
	long (*run)(const char *) = NULL, count, total = 0, part;
	char **paths, ready = 0;
	int clients, gate[2], answers[2], i;
	double start;

	if (argc != 4)
		return fprintf(stderr, "usage: bench_client OPERATION DIRECTORY CLIENTS < paths\n"), 2;
	for (i = 0; i < (int)(sizeof operations / sizeof *operations); i++)
		if (!strcmp(argv[1], operations[i].name))
			run = operations[i].run;
	clients = atoi(argv[3]);
	paths = read_paths(&count);
	if (!run || clients < 1 || !count)
		return fprintf(stderr, "bench_client: nothing to do\n"), 2;
	if (chdir(argv[2]) || pipe(gate) || pipe(answers))
		fail(argv[2]);
	for (i = 0; i < clients; i++) {
		if (fork() == 0) {
			long done = 0, k, first = count / clients * i;
			if (read(gate[0], &ready, 1) != 1)
				fail("gate");
			for (k = 0; k < count; k++)
				done += run(paths[(first + k) % count]);
			if (write(answers[1], &done, sizeof done) != sizeof done)
				fail("answer");
			_exit(0);
		}
	}
	close(answers[1]);
	start = now();
	for (i = 0; i < clients; i++)
		if (write(gate[1], &ready, 1) != 1)
			fail("gate");
	for (i = 0; i < clients; i++) {
		if (read(answers[0], &part, sizeof part) != sizeof part)
			fail("a client failed");
		total += part;
	}
	printf("%ld %.6f\n", total, now() - start);
	while (wait(NULL) > 0)
		;
	return 0;
}
