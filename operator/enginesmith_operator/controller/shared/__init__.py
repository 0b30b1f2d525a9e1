"""What both reconciles use."""
