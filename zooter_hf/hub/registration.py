"""Makes the Auto classes and `pipeline` of transformers know the router."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY

from zooter_hf.hub.card import fetch_model_card, write_model_card
from zooter_hf.hub.default import DEFAULT_ROUTER
from zooter_hf.modeling import ROUTING_TASK, ZooterConfig, ZooterForRouting, ZooterRoutingPipeline


def register():
    """Registers config, model, pipeline and card writer. Calling it again changes nothing."""
    AutoConfig.register(ZooterConfig.model_type, ZooterConfig, exist_ok=True)
    AutoModel.register(ZooterConfig, ZooterForRouting, exist_ok=True)
    AutoModelForSequenceClassification.register(ZooterConfig, ZooterForRouting, exist_ok=True)
    # The stock text-classification pipeline looks only here, and logs an error for models it does not find.
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[ZooterConfig.model_type] = ZooterForRouting.__name__
    if ROUTING_TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            ROUTING_TASK,
            pipeline_class=ZooterRoutingPipeline,
            pt_model=AutoModel,
            default={"model": (DEFAULT_ROUTER, "main")},
            type="text",
        )
    ZooterForRouting.register_save_hook(write_model_card)
    ZooterForRouting.register_push_hook(fetch_model_card)
