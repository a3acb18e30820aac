"""``medformer doctor``: what is installed, what works, what is missing and how to get it."""

from __future__ import annotations

import argparse
import json

from medformer import __version__


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``doctor`` to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="what is installed, what works, what is missing",
        description="Check this machine. The exit status is 0 when fine-tuning and evaluation can run here.",
    )
    parser.add_argument(
        "--thorough", action="store_true", help="import every package, Ray, MLflow and DeepSpeed too: several seconds"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON document")
    parser.set_defaults(run=run_doctor)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the findings; 0 when everything the core needs works, else 1."""
    from medformer import health

    findings = health.examine(thorough=arguments.thorough)
    healthy = not any(finding.state == "broken" for finding in findings)
    if arguments.json:
        document = {"medformer": __version__, "healthy": healthy, "findings": [vars(finding) for finding in findings]}
        print(json.dumps(document, indent=2))
        return 0 if healthy else 1

    print(f"medformer {__version__}")
    width = max(len(finding.name) for finding in findings)
    for part in dict.fromkeys(finding.part for finding in findings):
        print(f"\n{part}")
        for finding in findings:
            if finding.part == part:
                print(f"  {finding.state:8}{finding.name:{width}}  {finding.detail}".rstrip())
                if finding.remedy:
                    print(f"  {'':8}{'':{width}}  -> {finding.remedy}")
    if not arguments.thorough:
        print("\nRay, MLflow and DeepSpeed were looked up, not tried: --thorough imports them.")
    print("\nThe core works." if healthy else "\nThe core does not work: see 'broken' above.")
    return 0 if healthy else 1
