"""Without LangChain's decision models, all but the decision model works."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_an_older_langchain_is_told_what_to_install():
    code = (
        "import sys; sys.modules['langchain_core.decisions'] = None\n"
        "import langchain_eft\n"
        "assert langchain_eft.EFTChatModel\n"
        "try:\n    langchain_eft.EFTDecisionModel\n"
        "except ImportError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert "langchain-core>=1.8" in run.stdout
