"""Finding passages: chunks, BM25 and dense indexes, fusion, reranking, what to retrieve and when, and how well."""
