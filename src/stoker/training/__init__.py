"""The Trainer, and all that a training needs: objective, state, schedules, callbacks."""
