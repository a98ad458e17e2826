#!/usr/bin/env bash
# What a newcomer does first, from a clean clone and as the README says it: the demo, its page, a Hook of their own,
# and why that one asked nobody. Prints a transcript; ends with 1 where something is not as promised. A minute or two.
set -euo pipefail

repository="$(git -C "$(dirname "$0")" rev-parse --show-toplevel)"
place="$(mktemp -d)"
demo=""
leave() {
  [[ -z $demo ]] || { kill -INT "$demo" && wait "$demo"; } || true
  rm -rf "$place"
}
trap leave EXIT

say() { printf '\n# %s\n' "$*"; }
run() {
  printf '$ %s\n' "$*"
  eval "$*"
}
until_it_holds() { # seconds, then a command
  local left=$1
  shift
  until eval "$*" >/dev/null 2>&1; do
    ((left-- > 0)) || { echo "never came true: $*" >&2; exit 1; }
    sleep 1
  done
}

say "a clean clone"
cd "$place"
run "git clone --quiet $repository khook"
cd khook
run "make install kube-tools >/dev/null"
export PATH="$PWD/.venv/bin:$PWD/.envtest:$PATH"

say "the demo, left running"
khook demo --keep >demo.log 2>&1 &
demo=$!
until_it_holds 180 "grep -q '^Ctrl-C' demo.log"
run "grep -E '^(incidents|calls parked|worker|rollout storm)' demo.log"
grep -q 'lost 0, repeated 0' demo.log
KUBECONFIG="$(sed -n 's/^kubeconfig  export KUBECONFIG=//p' demo.log)"
KHOOK_STATUS_ADDRESS="$(sed -n 's#^status      http://\([^/]*\)/.*#\1#p' demo.log)"
export KUBECONFIG KHOOK_STATUS_ADDRESS

say "its page, and the Hooks"
run "curl --silent --show-error --fail http://$KHOOK_STATUS_ADDRESS/ | grep -o '<title>[^<]*</title>'"
run "kubectl get hooks -A -o wide"
run "khook shards"

say "a first Hook, with a slip in its selector"
cat >my-hook.yaml <<END
apiVersion: kagent.dev/v1alpha2
kind: Hook
metadata: {name: my-hook, namespace: mine}
spec:
  eventConfigurations:
  - eventType: pod-pending
    agentId: capacity-planner
    prompt: "{{.ResourceName}} does not start: {{.Reason}}. What does it wait for?"
    selector: {matchLabels: {app: my-shop}}
END
run "kubectl create namespace mine"
run "khook check --offline my-hook.yaml"
run "kubectl apply -f my-hook.yaml"
run "kubectl wait --for=condition=Ready hook/my-hook -n mine --timeout=30s"
run "kubectl run web -n mine --image=registry.example/web:1 --labels=app=shop"
unschedulable='{"status":{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False",
  "reason":"Unschedulable","message":"0/3 nodes are available: 3 Insufficient cpu.",
  "lastTransitionTime":"'"$(date -u +%Y-%m-%dT%H:%M:%SZ)"'"}]}}'
run "kubectl patch pod web -n mine --subresource=status --type=merge -p '$unschedulable'"
sleep 3
run "kubectl get hook my-hook -n mine -o jsonpath='{.status.activeEvents}{\"\\n\"}'"

say "why did it ask nobody?"
run "khook explain mine/web | tee why.txt"
grep -q '^SILENT, selector' why.txt

say "mended"
run "sed -i 's/my-shop/shop/' my-hook.yaml"
run "kubectl apply -f my-hook.yaml"
until_it_holds 30 "kubectl get hook my-hook -n mine -o jsonpath='{.status.activeEvents[0].call.state}' | grep -q Completed"
run "kubectl get hook my-hook -n mine -o wide"
run "kubectl get events -n mine --field-selector involvedObject.kind=Hook"
