"""What is tried on layerfs, area by area, and the tests that try it: the table behind `scripts/attack`.

An area names directories, files and tests. Where two areas name the same test, one by its file and one by
itself, the longer name counts: each test belongs to one area at most.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Area:
    """A row of the table."""

    name: str
    tries: str
    """What is tried, in a few words."""
    tests: tuple[str, ...]
    """Below ``tests/``: ``directory/``, ``file.py``, or ``file.py::test``."""


def _below(file: str, *tests: str) -> tuple[str, ...]:
    return tuple(f"{file}::{test}" for test in tests)


AREAS: Final = (
    Area(
        "protocol",
        "a registry's answers: endless, slow, short, inflating, redirected, contradictory, no JSON",
        (
            "registry/test_blobs.py",
            "registry/test_documents.py",
            "registry/test_parsers.py",
            "fetch/test_documents.py",
            "fetch/test_document_steps.py",
            "fetch/test_ranges.py",
            "fetch/test_verdicts.py",
            "end_to_end/test_errors.py",
            "end_to_end/test_verification.py",
            "oci/test_manifest.py",
            "oci/test_descent.py",
            "oci/test_digest.py",
            "oci/test_reference.py",
        ),
    ),
    Area(
        "logins",
        "where passwords and tokens go, and who can read them",
        (
            "registry/test_auth.py",
            "registry/test_credentials.py",
            "registry/test_logins.py",
            "registry/test_mirrors.py",
            "registry/test_secrets.py",
            "registry/test_tls_and_proxies.py",
            "registry/test_upload.py",
            "cli/test_access.py",
            "cli/test_login.py",
        ),
    ),
    Area(
        "reach",
        "foreign URLs, redirects and realms that lead into this network",
        ("registry/test_reach.py", "registry/test_allowed.py", "end_to_end/test_fence.py"),
    ),
    Area(
        "registries",
        "one registry, or a mirror, against the images of another",
        (
            "registry/test_hosts_toml.py",
            "registry/test_places.py",
            "registry/test_registries_conf.py",
            "fetch/test_isolation.py",
            "fetch/test_layer_work.py",
            "end_to_end/test_neighbours.py",
        ),
    ),
    Area(
        "serving",
        "strangers before layerfs serve: smuggled requests, ways out of the store, slow and many clients",
        ("serve/",),
    ),
    Area(
        "texts",
        "texts of others on a terminal, in the log, in a shell",
        ("cli/test_texts.py", "cli/test_completion.py", "oci/test_texts.py", "test_foreign.py"),
    ),
    Area(
        "costs",
        "what an image may cost: memory, time, disk, descriptors",
        (
            "end_to_end/test_cost.py",
            "extract/test_many_layers.py",
            "extract/test_long.py",
            "compression/test_formats.py",
            "view/test_disk.py",
            *_below(
                "api/test_store.py",
                "test_a_path_is_resolved_within_the_image",
                "test_what_cannot_be_opened_has_the_errno_of_a_system_call",
            ),
            *_below(
                "extract/test_worker.py", "test_what_waits_for_the_end_needs_little_memory_also_at_its_limit"
            ),
            *_below(
                "extract/test_verification.py",
                "test_budgets_are_kept_and_named",
                "test_budgets_that_just_suffice_suffice",
            ),
        ),
    ),
    Area(
        "archives",
        "archives made by hand or damaged: names, links, attributes, markers, sparse maps, streams",
        (
            "bad_layers/",
            "layer/test_footer.py",
            "layer/test_fuzzing.py",
            "layer/test_hostile_tocs.py",
            "layer/test_tar.py",
            "layer/test_tarsplit.py",
            "layer/test_toc.py",
            "layer/test_paths.py",
            "layer/test_metadata.py",
            "extract/test_damage.py",
            "extract/test_duplicates.py",
            "extract/test_members.py",
            "extract/test_overlay_form.py",
            "extract/test_verification.py",
            "extract/test_compressed.py",
            "extract/test_tocs.py",
            "oci/test_toc.py",
        ),
    ),
    Area(
        "lazy layers",
        "TOCs that lie: of another image's blob, of other bytes, of attributes that are the kernel's",
        (
            "view/test_lazy.py",
            "store/test_objects.py",
            "extract/test_skeletons.py",
            "layer/test_overlayfs.py",
            "fetch/test_agreement.py",
            "fetch/test_lazy.py",
            "fetch/test_lazy_kills.py",
        ),
    ),
    Area(
        "peers",
        "random archives and stacks beside other tools and the kernel",
        (
            "stacks/",
            "overlay/test_equality.py",
            "extract/test_round_trip.py",
            *_below(
                "cli/test_export.py",
                "test_the_archive_is_what_umoci_unpacks",
                "test_random_stacks_are_exported_as_the_specification_says",
            ),
        ),
    ),
    Area(
        "sources",
        "archives and layouts of this machine: links, loops, fifos, bombs",
        ("local/", "cli/test_import.py", "cli/test_mount_source.py"),
    ),
    Area(
        "users",
        "other users of the machine: locks, modes, planted files, swapped directories, setuid programs",
        (
            "store/test_gate.py",
            "store/test_locks.py",
            "store/test_paths.py",
            "store/test_removal.py",
            "delegation/test_listening.py",
            "delegation/test_peers.py",
            *_below("cli/test_delegated.py", "test_a_pull_that_would_be_another_is_the_commands_own"),
            *_below("cli/test_delegated_files.py", "test_no_pull_lets_others_fetch_more"),
            "host/test_trust.py",
            "host/test_mountpoint.py",
            "overlay/test_neighbours.py",
            "rootless/test_store.py",
            *_below("fuse/test_failures.py", "test_others_get_in_only_if_allowed"),
            *_below(
                "end_to_end/test_mount_command.py",
                "test_the_mount_is_read_only_and_has_no_devices_and_no_setuid",
            ),
        ),
    ),
    Area("confinement", "workers and the downloader that try what they may not", ("host/test_confine.py",)),
    Area(
        "kills",
        "SIGKILL of any process, anywhere",
        (
            "attacks/test_kills.py",
            "store/test_crash.py",
            "store/test_pieces.py",
            "store/test_processes.py",
            "extract/test_mounted.py",
            "fuse/test_failures.py",
            "fuse/test_interrupts.py",
            "end_to_end/test_waiting.py",
            *_below("extract/test_worker.py", "test_a_killed_process_fails_its_job_only"),
            *_below("extract/test_worker.py", "test_workers_end_when_their_daemon_is_killed"),
            *_below(
                "fetch/test_remote.py",
                "test_a_killed_process_fails_its_question_and_the_next_one_is_answered",
            ),
            *_below(
                "registry/test_against_docker_registry.py",
                "test_a_download_survives_the_registry_being_killed_several_times",
            ),
        ),
    ),
    Area(
        "full disk",
        "no free bytes, no free inodes, a disk or a copy that loses or changes what it took",
        (
            "overlay/test_copied_stores.py",
            "attacks/test_limits.py::test_a_disk_of_any_size_is_full_without_harm",
            "store/test_full_disk.py",
            "store/test_losses.py",
            "catalog/test_verification.py",
            "cli/test_verify.py",
            "store/test_disk.py",
            "cli/test_full_disk.py",
            "extract/test_disk.py",
        ),
    ),
    Area(
        "system calls",
        "one system call of any process fails",
        ("attacks/test_system_calls.py",),
    ),
    Area(
        "flapping",
        "a registry that resets, refuses, alters and cuts at random",
        ("attacks/test_flapping.py",),
    ),
    Area(
        "surroundings",
        "working directories, PATH and Python's variables that lead to code of others",
        (
            "attacks/test_surroundings.py",
            *_below("processes/test_helpers.py", "test_a_helper_finds_layerfs_and_leaves_no_trace_of_that"),
        ),
    ),
    Area(
        "limits",
        "few descriptors, little memory, time and room; processes that stand still; a store taken away",
        ("attacks/test_limits.py", "attacks/test_groups.py"),
    ),
    Area(
        "removal",
        "removers and sweepers beside mounts",
        (
            "attacks/test_removers.py",
            "overlay/test_in_use.py",
            "overlay/test_survival.py",
            "store/test_usage.py",
            "store/test_sweep.py",
        ),
    ),
    Area(
        "findings: high",
        "what once broke a promise in a default set-up (H1 to H7)",
        (
            *_below("registry/test_reach.py", "test_creds_to_redirect_target"),
            *_below(
                "fetch/test_isolation.py",
                "test_hung_registry_freezes_others",
                "test_digest_held_hostage",
                "test_digest_held_hostage_by_another_process",
            ),
            *_below("store/test_gate.py", "test_store_lock_by_any_user"),
            *_below("end_to_end/test_cost.py", "test_record_memory"),
            *_below("cli/test_completion.py", "test_completion_runs_mountpoints"),
            *_below("overlay/test_neighbours.py", "test_overlay_suid_for_all"),
        ),
    ),
    Area(
        "findings: medium",
        "what once did in a special set-up, or for a time (M1 to M14)",
        (
            *_below("registry/test_reach.py", "test_foreign_url_ssrf", "test_foreign_headers_slowloris"),
            *_below("fetch/test_isolation.py", "test_suspended_download_poison"),
            *_below(
                "cli/test_texts.py", "test_control_characters_in_output", "test_log_lines_forged_by_an_image"
            ),
            *_below(
                "store/test_gate.py",
                "test_planted_store",
                "test_private_blobs_readable",
            ),
            *_below("host/test_trust.py", "test_planted_configuration_file", "test_planted_authfile"),
            *_below("end_to_end/test_cost.py", "test_history_blocks_mount", "test_big_directory_memory"),
            *_below("extract/test_verification.py", "test_pax_cpu_unbounded"),
            *_below("layer/test_tar.py", "test_pax_cpu_unbounded", "test_pax_empty_value"),
            *_below(
                "overlay/test_neighbours.py",
                "test_mountpoint_swapped_while_an_overlay_is_fetched",
                "test_mountpoint_swapped_while_a_mount_is_made",
            ),
            *_below(
                "cli/test_full_disk.py", "test_full_disk_forgets_overlays", "test_full_disk_locks_tools_out"
            ),
            *_below("extract/test_disk.py", "test_full_disk_forgets_attributes"),
        ),
    ),
    Area(
        "findings: low",
        "what once was unclean",
        (
            *_below("cli/test_texts.py", "test_status_mountpoint_escape"),
            *_below("cli/test_texts.py", "test_a_lone_surrogate_does_not_hide_all_tags"),
            *_below("end_to_end/test_fence.py", "test_status_json_discloses"),
            *_below("store/test_gate.py", "test_umask_store"),
            *_below(
                "compression/test_formats.py", "test_a_gzip_header_that_is_longer_than_the_buffer_is_refused"
            ),
            *_below("store/test_sweep.py", "test_registry_named_like_staged"),
            *_below(
                "end_to_end/test_cost.py",
                "test_the_layers_of_an_image_have_a_budget_together",
                "test_no_memory_left_ends_a_worker_and_not_the_daemon",
            ),
            *_below(
                "fetch/test_documents.py", "test_a_document_that_is_announced_as_another_kind_is_refused"
            ),
            *_below("view/test_images.py", "test_tag_ttl_counts_also_after_the_clock_went_back"),
            *_below("view/test_images.py", "test_no_platform_is_a_directory_s_own_name"),
        ),
    ),
)


def area_of(test: str, areas: Iterable[Area] = AREAS) -> Area | None:
    """Return the area that a test belongs to, by its name below ``tests/``, None if it is in none."""
    found = [(len(name), area) for area in areas for name in area.tests if _covers(name, test)]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _covers(name: str, test: str) -> bool:
    return (
        test.startswith(name)
        if name.endswith("/")
        else test == name or test.startswith((f"{name}::", f"{name}["))
    )
