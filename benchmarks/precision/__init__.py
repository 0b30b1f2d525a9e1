"""What each precision makes of real text: PP-OCRv4 on rendered lines and pages, counted in lines and not in tensors."""
