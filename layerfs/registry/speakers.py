"""Whose word an answer is: a registry's own, or that of a server which it has led to. Pure."""

from layerfs.errors import RegistryError
from layerfs.registry.attempts import Explain
from layerfs.registry.auth import Grant
from layerfs.registry.challenge import Challenge, parse_challenges
from layerfs.registry.hosts import Host
from layerfs.registry.problem import Problem
from layerfs.registry.reply import Reply


def spoke(reply: Reply, host: Host) -> bool:
    """Say whether an answer is the registry's own. What it redirects to speaks for itself alone."""
    return reply.request.origin == host.origin


def challenges_of(reply: Reply, host: Host) -> tuple[Challenge, ...]:
    """Return how the registry wants to be asked; another server has no say in that."""
    return parse_challenges(reply.header_list("www-authenticate")) if spoke(reply, host) else ()


def explained(what: str, host: Host, grant: Grant | None) -> Explain:
    """Return what makes the error of an answer to a question for *what* that was asked with *grant*."""

    def explain(reply: Reply, problem: Problem) -> RegistryError:
        if not spoke(reply, host):
            return problem.error_of_other(what, str(reply.request.origin), host.name)
        return problem.error(what, host.name, grant.login if grant else "no credentials")

    return explain
