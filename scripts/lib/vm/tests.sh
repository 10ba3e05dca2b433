# shellcheck shell=bash
# The tiers `vm` and `vm-core` of scripts/test. Needs common.sh, and from scripts/test: results, pattern, machine, run_tests and check.
# shellcheck disable=SC2034,SC2154  # what is shared with scripts/test

VM_STATE=/var/lib/stasis-test-vm
# One factor for the time limits of all tests: an emulated processor is 15 times slower, and now and then 20.
VM_SLOWNESS=20

in_vm() { scripts/vm run --state "$VM_STATE" env "STASIS_TEST_SLOWNESS=$VM_SLOWNESS" "$STASIS_SRC/test/vm/in-machine" "$@"; }

# Node in the machine, with its results fetched to where those of a test run on the host are.
node_in_vm() {
  local status=0
  in_vm "${@/#--test-reporter-destination=$results*/--test-reporter-destination=/tmp/tap}" || status=$?
  scripts/vm run --state "$VM_STATE" cat /tmp/tap >"$results/tap" || true
  return "$status"
}

# Lines of a list in test/vm; a comment that says so is where the machine is rebooted.
vm_tests() { # LIST
  local line file names lines
  # Read before anything is run: a command in the machine takes what it finds on its input, and that was the rest of the list.
  mapfile -t lines <"$1"
  for line in "${lines[@]}"; do
    read -r file names <<<"$line"
    case $file in
      '#') [[ $names != *rebooted* ]] || { scripts/vm reboot --state "$VM_STATE" && in_vm up; } || return 1 ;;
      *.test.ts) [[ $file != *"$pattern"* ]] || run_tests "vm, $file" ${names:+"--test-name-pattern=$names"} "$file" ;;
    esac
  done
}

vm_tier() { # LIST
  [ "$(machine_arch)" = amd64 ] || { echo 'left out: the virtual machine is built on and for amd64 only'; return; }
  scripts/vm build
  scripts/node test/vm/build-image.ts "$STASIS_SRC/dist/test-image.tar"
  scripts/vm down --quiet --state "$VM_STATE"
  machine=$VM_STATE
  if ! scripts/vm up --tree --state "$VM_STATE" || ! in_vm up; then
    failed=$((failed + 1)); failures+=('the stack in the virtual machine'); return
  fi
  [ "$(cat "$VM_STATE/accel")" = tcg ] || VM_SLOWNESS=2
  # Hooks have this limit too: beside other work, to destroy what the conformance suite made took more than ten minutes.
  test_timeout=3600000
  runner=node_in_vm
  if ! vm_tests "$1"; then failed=$((failed + 1)); failures+=('the reboot of the virtual machine'); fi
  runner=scripts/node
  check 'nothing is left of the stack in the virtual machine' in_vm down
  scripts/vm down --quiet --state "$VM_STATE"
  machine=
}
