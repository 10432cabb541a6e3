"""The kernel edge: FUSE requests on nodes, waits, errnos. The only place for pyfuse3.

Translates and waits, decides nothing about the tree: a node answers, or returns a `Need`, and the edge
obtains it and asks again. `session.serve` owns a mount.

**Who may wait.** A caller sleeps in the kernel until its request is answered, and the kernel holds locks for
it meanwhile. So a request may wait for a fetch only where the caller can be let go, and where nobody else
queues behind it:

=============  =====  ==================================================================================
request        waits  why
=============  =====  ==================================================================================
LOOKUP         yes    libfuse 3.14 never asks for parallel lookups (FUSE_PARALLEL_DIROPS): the kernel holds
                      the lock of the directory, and every other uncached name and listing in it queues. So a
                      node needs something only where all names of its directory need the same.
READLINK       yes    the link of a tag is resolved when it is read, and no lock of a directory is held.
OPEN, OPENDIR  yes    no lock of a directory is held: siblings are served. A handle has what it needs.
GETATTR        no     `ls -l` asks for each entry. Names that are here have attributes that are here.
READ           no     pyfuse3 says not who asks, so nobody could be let go; page faults and read-ahead wait
                      in the page cache, unkillable. OPEN fetched the file.
READDIR        no     answers from the listing that OPENDIR took.
GETXATTR etc.  no     overlayfs asks them for each name that it looks up.
FORGET         no     has no reply.
=============  =====  ==================================================================================

**How a wait ends.** By what it waits for, by the deadline (`fetch_timeout`, ETIMEDOUT), or by a signal. Once
a signal arrives the kernel sends FUSE_INTERRUPT and keeps the caller until the reply, even for SIGKILL
(Linux, Documentation/filesystems/fuse/fuse.rst, "Interrupting filesystem operations"). pyfuse3 passes no
interrupts on, so one task looks at /proc for signals that wait for the callers (`waiting`): EINTR.
A wait that ends ends no download: others may await the same.

**What is served meanwhile.** A waiting request occupies one task of the loop (`session.MAX_TASKS`) and no
thread. Whatever else could block the loop - the local disk apart - runs in a thread or in another process.
"""
