/*
 * The client of `scripts/bench mount` and `scripts/bench beside`: as little as possible between the clock and
 * the kernel.
 *
 *   bench_client OPERATION DIRECTORY CLIENTS < paths
 *   bench_client latency DIRECTORY SECONDS < paths
 *   bench_client wait DIRECTORY CALLERS < paths
 *
 * The paths are relative to DIRECTORY, a line each, and are read before the clock starts.
 *
 * OPERATION is stat, read (open, read to the end, close), find (list every directory) or cat (read in pieces
 * of 1 MiB). CLIENTS processes run at once, each over all paths, each from another place in the list. Prints
 * the number of operations (bytes for cat) of all clients and the seconds from the first to the last of them.
 *
 * latency looks all paths up, again and again, for SECONDS or until SIGTERM; between two passes the kernel
 * forgets its dentries (root only), and that time does not count. Prints the number of lookups, their
 * median, 99th percentile and maximum in microseconds, and the seconds spent in them.
 *
 * wait opens the paths in CALLERS threads at once, each of which is expected to wait, and prints nothing.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1 << 20)
#define SMALL (1 << 16)
#define MOST_LOOKUPS (8 << 20)
#define PAUSE_US 50000 /* for the daemon to hear what the kernel forgot */
#define STACK (1 << 16)

static char buffer[PIECE];
static volatile sig_atomic_t ended;

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

static void forget_dentries(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
	if (fd < 0 || write(fd, "2", 1) != 1)
		fail("drop_caches");
	close(fd);
	usleep(PAUSE_US);
}

static void end(int number)
{
	(void)number;
	ended = 1;
}

static int by_time(const void *one, const void *other)
{
	float a = *(const float *)one, b = *(const float *)other;
	return (a > b) - (a < b);
}

static void latency(char **paths, long count, double seconds)
{
	float *times = malloc(MOST_LOOKUPS * sizeof *times);
	long done = 0, i;
	double last, t, spent = 0, until = now() + seconds;
	if (!times)
		fail("memory");
	signal(SIGTERM, end);
	while (!ended && now() < until) {
		forget_dentries();
		last = now();
		for (i = 0; i < count && !ended && done < MOST_LOOKUPS && last < until; i++) {
			do_stat(paths[i]);
			t = now();
			times[done++] = (t - last) * 1e6;
			spent += t - last;
			last = t;
		}
	}
	if (!done)
		fail("no lookup");
	qsort(times, done, sizeof *times, by_time);
	printf("%ld %.2f %.2f %.2f %.6f\n", done, times[done / 2], times[done * 99 / 100], times[done - 1], spent);
}

static void *wait_for(void *path)
{
	int fd = open(path, O_RDONLY); /* interrupted, or the mount ends: all the same */
	if (fd >= 0)
		close(fd);
	return NULL;
}

static void wait_together(char **paths, long count, long callers)
{
	pthread_attr_t small;
	pthread_t thread;
	long i;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK);
	for (i = 0; i < callers; i++)
		if ((errno = pthread_create(&thread, &small, wait_for, paths[i % count])))
			fail("thread");
	pthread_exit(NULL); /* the process ends with its last thread */
}

static void timed(char **paths, long count, long (*run)(const char *), int clients)
{
	long total = 0, part;
	int gate[2], answers[2], i;
	char ready = 0;
	double start;

	if (pipe(gate) || pipe(answers))
		fail("pipe");
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
}

int main(int argc, char **argv)
{
	static const struct { const char *name; long (*run)(const char *); } operations[] = {
		{"stat", do_stat}, {"read", do_read}, {"find", do_find}, {"cat", do_cat},
	};
	long count, number;
	char **paths;
	int i;

	if (argc != 4)
		return fprintf(stderr, "usage: bench_client OPERATION DIRECTORY NUMBER < paths\n"), 2;
	paths = read_paths(&count);
	number = atol(argv[3]);
	if (number < 1 || !count)
		return fprintf(stderr, "bench_client: nothing to do\n"), 2;
	if (chdir(argv[2]))
		fail(argv[2]);
	if (!strcmp(argv[1], "latency"))
		return latency(paths, count, number), 0;
	if (!strcmp(argv[1], "wait"))
		return wait_together(paths, count, number), 0;
	for (i = 0; i < (int)(sizeof operations / sizeof *operations); i++)
		if (!strcmp(argv[1], operations[i].name))
			return timed(paths, count, operations[i].run, number), 0;
	return fprintf(stderr, "bench_client: no operation %s\n", argv[1]), 2;
}
