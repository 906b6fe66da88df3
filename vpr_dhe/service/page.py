"""The page where a person asks with a photo."""

from fastapi import APIRouter

router = APIRouter()
