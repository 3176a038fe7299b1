#!/bin/sh
# Every route of a server by curl.
#
# Start a server first: langchain-eft serve
# Run: sh examples/server/curl.sh [URL] [KEY]
set -eu
url=${1:-http://127.0.0.1:8000}
key=${2:-none}

call() {
    path=$1
    shift
    curl --silent --show-error --fail-with-body --header "Authorization: Bearer $key" \
        --header "Content-Type: application/json" "$@" "$url$path"
    echo
}

echo "# Is it ready?"
call /health

echo "# Which mixtures are there?"
call /v1/models

echo "# A whole answer, with a mixture in the body"
call /v1/chat/completions --data '{
    "model": "smol", "mixture": {"pirate": 1.0, "concise": 1.0}, "temperature": 0, "max_tokens": 30,
    "messages": [{"role": "user", "content": "Tell me about whales."}]
}'

echo "# A stream, with a mixture as the name of a model"
call /v1/chat/completions --no-buffer --data '{
    "model": "smol:concise=1", "temperature": 0, "max_tokens": 30, "stream": true,
    "messages": [{"role": "user", "content": "Tell me about whales."}]
}'

echo "# A text to continue, and its log-probabilities"
call /v1/completions --data '{
    "model": "smol:none", "prompt": "The capital of Japan is", "temperature": 0, "max_tokens": 3, "logprobs": 1
}'

echo "# Tokens of a text"
call /tokenize --data '{"prompt": "Hello there"}'

echo "# What Prometheus reads"
call /metrics
