"""The chart's CRD is the one that is generated from the models, and no uninstallation takes it away."""

from support.charts import CRDS, only, rendered
from support.real_apiserver import REPOSITORY

from khook.api.crd import as_yaml, crd


def test_models_file_and_chart_say_the_same() -> None:
    """`make crd` writes all of them."""
    generated = as_yaml(crd())
    assert (REPOSITORY / "crds" / "kagent.dev_hooks.yaml").read_text(encoding="utf-8") == generated
    assert (CRDS / "files" / "kagent.dev_hooks.yaml").read_text(encoding="utf-8") == generated
    assert only("CustomResourceDefinition", rendered(chart=CRDS), "hooks.kagent.dev")["spec"] == crd()["spec"]


def test_the_crd_and_with_it_every_hook_stays_when_the_chart_is_uninstalled() -> None:
    (found,) = rendered(chart=CRDS)
    assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
