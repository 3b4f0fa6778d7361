"""Fine-tuning: LoRA on the U-Net over k-frame images, and the pretraining of the embedded base."""
