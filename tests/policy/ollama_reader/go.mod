module ollama_reader

go 1.22
