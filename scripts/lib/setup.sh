# Sourced by the scripts: makes this machine able to run them. Installs only what is missing.
#
#   need_packages PACKAGE...   system packages, by apt, through sudo if need be
#   need_venv [EXTRA]          .venv with layerfs in it; a stamp makes the second run free
#   need_fuse                  a /dev/fuse that can be opened
#
# ROOT is the checkout.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON_MINIMUM="3, 11"

note() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { note "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $* (run as root, or install sudo)"
    fi
}

# What shows that a package is there: the second column of the list beside this file.
probe_of() {
    awk -v package="$1" '$1 == package { print $2; found = 1 } END { exit !found }' "$ROOT/scripts/lib/packages" ||
        die "$1 is not in scripts/lib/packages"
}

has_package() {
    local probe
    probe=$(probe_of "$1") || exit 1
    case $probe in
        header:*) asks_python "import os, sysconfig; os.stat(sysconfig.get_path('include') + '/${probe#*:}')" ;;
        # A minimal Debian has venv without what it puts into an environment.
        module:*) asks_python "import ensurepip, ${probe#*:}" ;;
        /*) [ -e "$probe" ] ;;
        *) PATH=$PATH:/usr/sbin:/sbin command -v "$probe" >/dev/null ;;
    esac
}

asks_python() {
    local python
    python=$(find_python) && "$python" -c "$1" 2>/dev/null
}

# Prints the first Python that is new enough; $PYTHON is asked first.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if [ -n "$candidate" ] && "$candidate" -c "import sys; sys.exit(sys.version_info < ($PYTHON_MINIMUM))" 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

need_packages() {
    local package missing=()
    for package in "$@"; do
        has_package "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null || die "missing: ${missing[*]} (names of Debian packages; this machine has no apt-get)"
    note "installing ${missing[*]}"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}")
    if ! as_root "${install[@]}" >/dev/null 2>&1; then
        as_root apt-get update -qq || die "apt-get update fails, and these are missing: ${missing[*]}"
        as_root "${install[@]}" >/dev/null || die "apt-get cannot install: ${missing[*]}"
    fi
    # Debian starts a registry of its own on port 5000; nobody asked for that.
    case " ${missing[*]} " in *" docker-registry "*)
        [ ! -d /run/systemd/system ] || as_root systemctl disable --quiet --now docker-registry || true ;;
    esac
    for package in "${missing[@]}"; do
        has_package "$package" || die "installed $package, but still no $(probe_of "$package")"
    done
}

need_venv() {
    local extra=${1:-} python wanted stamp=$ROOT/.venv/.layerfs-installed locked=$ROOT/scripts/lib/requirements.lock
    python=$(find_python) || die "no Python >= ${PYTHON_MINIMUM/, /.} found (set PYTHON to one)"
    wanted=$(cat "$ROOT/pyproject.toml" "$locked" | sha256sum | cut -d' ' -f1)
    # What was installed with an extra serves those who need none.
    if [ -x "$ROOT/.venv/bin/layerfs" ] && grep -qsx "$wanted ${extra:-.*}" "$stamp"; then
        return 0
    fi
    note "installing layerfs into .venv"
    if ! "$ROOT/.venv/bin/python" -c "" 2>/dev/null; then
        rm -rf "$ROOT/.venv"
        "$python" -m venv "$ROOT/.venv" || die "cannot create .venv with $python"
    fi
    local install=("$ROOT/.venv/bin/python" -m pip install -qq --disable-pip-version-check)
    if [ -n "$extra" ]; then  # the versions that were tried, by their hashes; users get the newest that is allowed
        "${install[@]}" --require-hashes -r "$locked" || die "pip cannot install what $locked lists (see above)"
        install+=(--no-deps)
    fi
    "${install[@]}" --editable "$ROOT" || die "pip cannot install layerfs (see above)"
    echo "$wanted $extra" >"$stamp"
}

need_fuse() {
    if [ ! -e /dev/fuse ]; then
        as_root modprobe fuse 2>/dev/null || true
        [ -e /dev/fuse ] || as_root mknod -m 666 /dev/fuse c 10 229 2>/dev/null || true
    fi
    if ! as_root sh -c ': <>/dev/fuse' 2>/dev/null; then
        die "no usable /dev/fuse: in a container add --device /dev/fuse and --cap-add SYS_ADMIN; elsewhere try: modprobe fuse"
    fi
}
