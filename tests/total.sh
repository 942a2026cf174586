#!/usr/bin/env bash
# Runs a test command, shows its output, and ends with the total of all test binaries:
# `N passed, N failed, N skipped`, alone on the last line.
#   usage: total.sh COMMAND...
# Skipped are tests that their runner ignored, and passing unit tests that printed a line `skipped: <why>`, which
# needs --show-output.
# Fails when a test failed, when the command failed otherwise, and when no test ran at all.
set -uo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT

"$@" </dev/null 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

# `test result: ok. 5 passed; 0 failed; 1 ignored; …`, perhaps with colours.
read -r passed failed skipped binaries < <(
  sed -E 's/\x1b\[[0-9;]*m//g' "$log" | awk '
    /test result: (ok|FAILED)\. [0-9]+ passed; [0-9]+ failed; [0-9]+ ignored/ {
      sub(/.*test result: [A-Za-z]+\. /, "")
      passed += $1; failed += $3; ignored += $5; binaries++
    }
    # The output of a test that passed: one section each.
    /^---- .* stdout ----$/ { listening = 1 }
    /^$/ { listening = 0 }
    listening && /^skipped: / { said++; listening = 0 }
    END { print passed - said, failed + 0, ignored + said, binaries + 0 }'
)

echo
if ((skipped > 0)); then
  echo "skipped, and why:"
  sed -E 's/\x1b\[[0-9;]*m//g' "$log" |
    sed -nE -e 's/^skipped: /  /p' -e 's/^test (.*[^ ]) +\.\.\. ignored(, | )?\(?(.*[^)])?\)?$/  \1: \3/p' | sed 's/: *$//' | sort -u
fi
# What failed and what it said, once more, where nobody has to scroll for it.
if ((failed > 0)); then
  echo "failed, and why:"
  sed -E 's/\x1b\[[0-9;]*m//g' "$log" | awk '
    /^failures:$/ { listening = 1; next }
    /^test result: / { listening = 0 }
    listening && NF && lines < 400 { print "  " $0; lines++ }'
fi
if ((status == 0 && failed > 0)); then
  status=1
fi
if ((passed + failed == 0)); then
  echo "no test ran"
  status=1
elif ((status != 0 && failed == 0)); then
  echo "no test failed, but \`$*\` did: status=\`$status\`"
fi
echo "$binaries test binaries"
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
